"""The two-column network of the AlexNet paper as cuda-convnet's authors wrote such networks: 35 sections, by a pattern.

Sizes are arguments, so that tests are small. Also its weights in cuda-convnet's layout, and pickled checkpoints.
"""

import gzip
import pickle

import numpy as np

COLUMNS = "ab"


def sections(kernels=(96, 256, 384, 384, 256), fc=4096, classes=1000, crossed=("hs1b", "hs1a")) -> dict[str, dict]:
    """Name -> settings, in which numbers of kernels are those of both columns."""
    half = [count // 2 for count in kernels]
    conv = lambda inputs, channels, filters, size, stride, padding, **more: {       # noqa: E731
        "type": "conv", "inputs": inputs, "channels": channels, "filters": filters, "filterSize": size,
        "stride": stride, "padding": padding, "sharedBiases": 1, "partialSum": 1, "initW": 0.01,
        "initWFunc": "os.system('touch RAN')", **more}
    pool = lambda inputs, channels, **more: {"type": "pool", "pool": "max", "inputs": inputs, "start": 0,   # noqa: E731
                                             "sizeX": 3, "stride": 2, "outputsX": 0, "channels": channels, **more}
    both = lambda name: f"{name}a,{name}b"                                          # noqa: E731
    found = {"data": {"type": "data", "dataIdx": 0}, "labels": {"type": "data", "dataIdx": 1}}
    add = lambda name, make: found.update({f"{name}{c}": make(c) for c in COLUMNS})     # noqa: E731
    add("conv1", lambda c: conv("data", 3, half[0], 11, 4, 0))
    add("rnorm1", lambda c: {"type": "cmrnorm", "inputs": f"conv1{c}", "channels": half[0], "size": 5})
    add("pool1", lambda c: pool(f"rnorm1{c}", half[0], neuron="relu"))
    add("conv2", lambda c: conv(f"pool1{c}", half[0], half[1], 5, 1, 2, neuron="relu"))
    add("rnorm2", lambda c: {"type": "cmrnorm", "inputs": f"conv2{c}", "channels": half[1], "size": 5})
    add("cnorm2", lambda c: {"type": "rnorm", "inputs": f"rnorm2{c}", "channels": half[1], "size": 5})
    add("pool2", lambda c: pool(f"cnorm2{c}", half[1]))
    add("conv3", lambda c: conv(both("pool2"), f"{half[1]},{half[1]}", half[2], "3,3", "1,1", "1,1", neuron="relu"))
    add("conv4", lambda c: conv(f"conv3{c}", half[2], half[3], 3, 1, 1, neuron="relu"))
    add("conv5", lambda c: conv(f"conv4{c}", half[3], half[4], 3, 1, 1))
    add("pool3", lambda c: pool(f"conv5{c}", half[4], neuron="relu"))
    add("fc2048", lambda c: {"type": "fc", "inputs": both("pool3"), "outputs": fc // 2, "neuron": "relu"})
    add("hs1", lambda c: {"type": "hs", "inputs": f"fc2048{c}", "keep": 0.5})
    found["fc2048ba"] = {"type": "fc", "inputs": both("hs1"), "outputs": fc // 2, "neuron": "relu"}
    found["fc2048bb"] = {"type": "fc", "inputs": ",".join(crossed), "outputs": fc // 2, "neuron": "relu"}
    add("hs2", lambda c: {"type": "hs", "inputs": f"fc2048b{c}", "keep": 0.5})
    found["fc1000"] = {"type": "fc", "inputs": both("hs2"), "outputs": classes}
    found["probs"] = {"type": "softmax", "inputs": "fc1000"}
    found["logprob"] = {"type": "cost.logreg", "inputs": "labels,probs"}
    return found


def params(found: dict) -> dict[str, dict]:
    """The second file: what the norms need, and learning rates."""
    norms = {name: {"scale": 0.0001, "pow": 0.75, "minDiv": 2} for name, one in found.items()
             if one["type"] == "cmrnorm"}
    norms |= {name: {"scale": 0.001, "pow": 0.75} for name, one in found.items() if one["type"] == "rnorm"}
    rates = {name: {"epsW": 0.00001, "epsB": 0.02, "momW": 0.9, "wc": 0.0005} for name, one in found.items()
             if one["type"] in ("conv", "fc")}
    return norms | rates | {"logprob": {"coeff": 1}}


def cfg(found: dict) -> str:
    return "".join(f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in one.items()) + "\n"
                   for name, one in found.items())


def weights(found: dict, flat: int, rng) -> dict[str, tuple[list, np.ndarray]]:
    """Name -> (weights for each input, biases).   flat: values of one column before the fully connected layers."""
    result, outputs = {}, {f"pool3{c}": flat for c in COLUMNS}
    for name, one in found.items():
        inputs = str(one.get("inputs", "")).split(",")
        if one["type"] == "fc":
            shapes = [(outputs[source], one["outputs"]) for source in inputs]
            outputs[name] = one["outputs"]
        elif one["type"] == "conv":
            size = int(str(one["filterSize"]).split(",")[0])
            channels = str(one["channels"]).split(",")
            shapes = [(int(channels[k]) * size**2, one["filters"]) for k in range(len(inputs))]
        else:
            outputs.setdefault(name, outputs.get(inputs[0], 0))
            continue
        rows = sum(shape[0] for shape in shapes)
        made = [(rng.standard_normal(shape) * (2 / rows) ** 0.5).astype(np.float32) for shape in shapes]
        bias = rng.standard_normal(one["outputs"] if one["type"] == "fc" else one["filters"]).astype(np.float32) / 10
        result[name] = made, bias.reshape(-1, 1) if one["type"] == "conv" else bias.reshape(1, -1)
    return result


def checkpoint(found: dict, arrays: dict, *, as_list: bool, image: int, second: dict, zipped: bool = False) -> bytes:
    """A pickle as cuda-convnet's Python 2 wrote it: parsed settings, twins for neurons; a cycle; protocol 2."""
    names, entries = list(found), []
    place = lambda name: names.index(name) if as_list else name                 # noqa: E731
    for name, one in found.items():
        settings = {**second.get(name, {}), **one}
        inputs = [source for source in str(settings.pop("inputs", "")).split(",") if source]
        numbers = lambda key, of=settings: [int(v) for v in str(of[key]).split(",")]        # noqa: E731
        entry = {"name": name, "type": settings["type"], "inputs": [place(source) for source in inputs]}
        if settings["type"] == "conv":
            entry |= {key: (numbers(key) * len(inputs))[:len(inputs)] for key in ("channels", "filterSize", "stride")}
            entry |= {"padding": [-p for p in (numbers("padding") * len(inputs))[:len(inputs)]], "groups": [1] * len(
                inputs), "filters": settings["filters"], "imgSize": [image] * len(inputs)}
        elif settings["type"] in ("cmrnorm", "rnorm"):
            size = settings["size"]
            entry |= {key: settings[key] for key in ("size", "pow") if key in settings}
            entry |= {"scale": settings["scale"] / (size if settings["type"] == "cmrnorm" else size**2)}
            entry |= {"minDiv": settings["minDiv"]} if "minDiv" in settings else {}
        else:
            entry |= {key: settings[key] for key in ("pool", "sizeX", "stride", "start", "outputs", "keep")
                      if key in settings}
        if name in arrays:
            entry |= {"weights": [np.asfortranarray(w) for w in arrays[name][0]], "biases": arrays[name][1]}
            entry["weightsInc"] = [np.zeros_like(w) for w in arrays[name][0]]
        if "neuron" in settings:
            entry["neuron"] = {"type": settings["neuron"], "params": {}}
        entries.append(entry)
    for one in [entry for entry in entries if "neuron" in entry]:
        twin = {"name": f"{one['name']}_neuron", "type": "neuron", "inputs": [place(one["name"])],
                "neuron": one["neuron"]}
        for reader in entries:
            reader["inputs"] = [len(entries) if as_list and source == place(one["name"]) else
                                twin["name"] if source == place(one["name"]) else source for source in reader["inputs"]]
        entries.append(twin)
    for entry in entries:
        entry["inputLayers"] = entries                      # a cycle
    layers = entries if as_list else {entry["name"]: entry for entry in entries}
    data = pickle.dumps({"model_state": {"epoch": 1, "layers": layers}, "op": object()}, 2)
    return gzip.compress(data, 1) if zipped else data
