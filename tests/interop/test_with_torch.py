"""Files that PyTorch itself wrote, and networks that it computes: by torch.save and by its exporters."""

import numpy as np
import pytest

from minicnn import Builder, interop
from minicnn.interop.read import read_weights

pytestmark = [pytest.mark.slow, pytest.mark.torch]
torch = pytest.importorskip("torch")


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_save(tmp_path, zipped):
    """Every type, views, parameters, and modules on several levels."""
    base = torch.randn(3, 4)
    tensors = {"half": base.half(), "bf": base.bfloat16(), "double": base.double(), "turned": base.T,
               "part": base[1:, 2], "parameter": torch.nn.Parameter(base), "expanded": base[:1].expand(1, 4),
               "scalar": torch.tensor(2.5)}
    torch.save({"state_dict": {f"module.{name}": one for name, one in tensors.items()}, "epoch": 3,
                "extra": np.float64(1)}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    found = read_weights(tmp_path / "a.pth").tensors
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert np.array_equal(found[name].read(), tensor.detach().float().numpy()), name


class Classifier(torch.nn.Module):
    """What its exporters disguise: response normalisation, flattening, ReLU6, GELU, pooling over the edge."""

    def __init__(self):
        super().__init__()
        nn = torch.nn
        self.features = nn.Sequential(
            nn.Conv2d(3, 12, 3, stride=2, padding=1), nn.ReLU(), nn.LocalResponseNorm(5, alpha=0.3, k=2.0),
            nn.BatchNorm2d(12), nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.ReLU6(),
            nn.GELU())
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(12 * 3 * 4, 7))

    def forward(self, x):
        x = self.features(x)
        return self.classifier(x.view(x.size(0), -1))


def ours():
    b = Builder((22, 30, 3), "ours")
    b.conv("conv1", 12, 3, stride=2, padding=1)
    b.relu()
    b.lrn(n=5, alpha=0.3, k=2.0, divide_alpha=True)
    b.batchnorm("bn1")
    b.maxpool(None, 3, stride=2, ceil=True)
    b.avgpool(None, 3, stride=2, padding=1, ceil=True, count_pad="padding")
    b.clipped_relu(None, 6.0)
    b.gelu()
    b.flatten()
    b.dropout(None, 0.5, inverted=True)
    b.linear("fc2", 7)
    b.loss()
    return b.net(device="reference")


def model_and_logits(images):
    torch.manual_seed(0)
    model = Classifier().eval()
    model.features[3].running_mean.normal_()
    model.features[3].running_var.uniform_(0.5, 1.5)
    with torch.no_grad():
        return model, model(torch.from_numpy(images)).numpy()


IMAGES = np.random.default_rng(0).uniform(-50, 50, (2, 3, 22, 30)).astype(np.float32)


def assert_equal(net, expected):
    found = net(np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1)))
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_a_state_dict_there_and_back(tmp_path):
    """torch's logits here; and torch loads what we write, bit for bit."""
    from safetensors.torch import load_file
    model, expected = model_and_logits(IMAGES)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    net = interop.read(tmp_path / "a.pth", model=ours(), device="reference")
    assert_equal(net, expected)
    interop.write(net, tmp_path / "b.safetensors")
    again = Classifier().eval()
    result = again.load_state_dict(load_file(tmp_path / "b.safetensors"), strict=False)
    assert set(result.missing_keys) <= {"features.3.num_batches_tracked"} and not result.unexpected_keys
    with torch.no_grad():
        assert np.array_equal(again(torch.from_numpy(IMAGES)).numpy(), expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["opset 9", "opset 17", "free batch", "dynamo"])
def test_exporters(tmp_path, how):
    pytest.importorskip("onnx")
    model, expected = model_and_logits(IMAGES)
    if how == "dynamo":
        pytest.importorskip("onnxscript")
        torch.onnx.export(model, (torch.from_numpy(IMAGES),), tmp_path / "a.onnx", dynamo=True, verbose=False)
    else:
        opset, free = (17 if how == "free batch" else int(how[6:])), {"x": {0: "n"}} if how == "free batch" else None
        torch.onnx.export(model, (torch.from_numpy(IMAGES),), tmp_path / "a.onnx", dynamo=False, opset_version=opset,
                          input_names=["x"], dynamic_axes=free)
    net = interop.read(tmp_path / "a.onnx", device="reference")
    assert_equal(net, expected)
    assert [node.layer.kind() for node in net.nodes].count("LRN") == 1
