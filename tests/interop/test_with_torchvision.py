"""torchvision's networks with random weights, as it saves them and through both of PyTorch's exporters: its logits."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from minicnn import interop
from minicnn.interop.state_dict import export_state_dict
from minicnn.models.registry import build

pytestmark = pytest.mark.slow
CLASSES = 7
# Name -> the side of the images, arguments there. Maps are of several pixels where they are flattened, or averaged.
NETS = {"alexnet": (224, {}), "vgg11_bn": (224, {}), "vgg19": (224, {}),
        "googlenet": (96, {"init_weights": False, "transform_input": False}),
        "resnet18": (65, {}), "resnet50": (65, {}), "squeezenet1_1": (97, {}), "mobilenet_v2": (65, {})}
GRADIENTS = {"alexnet": "alexnet:torchvision", "resnet18": "resnet18", "mobilenet_v2": "mobilenet_v2"}


@cache
def images(side: int, count: int = 2) -> np.ndarray:
    """Patches of some colour, and noise: noise alone looks the same to deep layers, and rounding then counts."""
    rng, patch = np.random.default_rng(count), -(-side // 5)
    patches = rng.standard_normal((count, 5, 5, 3)).repeat(patch, 1).repeat(patch, 2)[:, :side, :side]
    return (2 * patches + 0.5 * rng.standard_normal((count, side, side, 3))).astype(np.float32)


@pytest.fixture(scope="module", params=NETS)
def source(request, torch, torchvision):
    """(name, torchvision's network in evaluation, its logits for `images`); weights that keep the size of values."""
    side, arguments = NETS[request.param]
    torch.manual_seed(0)
    module = getattr(torchvision.models, request.param)(num_classes=CLASSES, weights=None, **arguments)
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(part.weight)
            if part.bias is not None:
                torch.nn.init.normal_(part.bias, 0, 0.1)
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        some, x = (torch.from_numpy(images(side, count)).permute(0, 3, 1, 2).contiguous() for count in (12, 2))
        module(some)                                        # whose statistics are those of the network
        logits = module.eval()(x).numpy()
    assert np.abs(logits[0] - logits[1]).max() > 0.1 * np.abs(logits).max()         # it is not the biases that count
    return request.param, module, x, logits


def assert_equal(net, name: str, logits: np.ndarray) -> None:
    difference = np.abs(net(images(NETS[name][0])) - logits).max() / np.abs(logits).max()
    print(f"{name}: {difference:.1e} of the largest logit")
    assert difference < 1e-4


def saved(torch, source, folder):
    """The network that is read from its state dict."""
    name, module, *_ = source
    torch.save(module.state_dict(), folder / "net.pth")
    return interop.read(folder / "net.pth", size=NETS[name][0], device="cpu")


def test_state_dicts(torch, source, tmp_path):
    """The network is known by the names and shapes; what is exported again has the bits of the file."""
    name, module, _, logits = source
    net = saved(torch, source, tmp_path)
    assert_equal(net, name, logits)
    theirs = {key: value for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")}
    back = export_state_dict(net)
    assert back.keys() == theirs.keys()
    assert all(np.array_equal(back[key], value.numpy()) for key, value in theirs.items())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript", "dynamo"])
def test_exporters(torch, source, tmp_path, dynamo):
    pytest.importorskip("onnx")
    if dynamo:
        pytest.importorskip("onnxscript")
    name, module, x, logits = source
    if name == "googlenet":
        module.transform_input = True                       # as for its published weights; no part of a state dict
        with torch.no_grad():
            logits = module(x).numpy()
    more = {"dynamo": True, "verbose": False} if dynamo else {"dynamo": False, "opset_version": 17}
    torch.onnx.export(module, (x,), tmp_path / "net.onnx", **more)
    module.transform_input = False
    assert_equal(interop.read(tmp_path / "net.onnx", device="cpu"), name, logits)


@pytest.mark.parametrize("source", GRADIENTS, indirect=True)
def test_gradients(torch, source, tmp_path):
    """Of every parameter, in float64, by torchvision's names."""
    name, module, x, _ = source
    read = saved(torch, source, tmp_path)
    net = build(GRADIENTS[name], num_classes=CLASSES, input_size=NETS[name][0], device="cpu", dtype="float64")
    net.load_arrays(read.arrays())
    labels = np.array([1, 4])
    loss = net.loss(images(NETS[name][0]).astype(np.float64), labels, train=False, grad=True)
    net.backward()
    module = module.double()
    theirs = torch.nn.functional.cross_entropy(module(x.double()), torch.from_numpy(labels))
    theirs.backward()
    assert loss == pytest.approx(theirs.item(), rel=1e-12)
    net.load_arrays(net.arrays() | {key: param.grad for key, param in net.params.items()})
    ours = export_state_dict(net)
    for key, parameter in module.named_parameters():
        wanted = parameter.grad.numpy()
        assert np.abs(ours[key] - wanted).max() < 1e-5 * np.abs(wanted).max(), key
    module.zero_grad()
    module.float()
