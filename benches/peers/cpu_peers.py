#!/usr/bin/env python3
"""ONNX Runtime and torch on the shapes of `benches/linear`.

    cpu_peers.py --threads N [--only TEXT,...] [--n N,...] [--seconds N] [--json FILE]     needs torch, onnx, onnxruntime, numpy

Times are medians; weights rotate through 256 MB, or twice the last cache where that is more; answers are checked first.
`--only` keeps what holds a text of `<peer> <dtypes>`, such as `torch i8i8`; `--n` keeps the sizes of these N.
ONNX Runtime keeps to 64 sessions, so that its small weights may stay in the last cache. oneDNN reads ONEDNN_MAX_CPU_ISA when it
starts: set it outside to see a machine without AMX, and the rows say so.
"""
import argparse
import json
import os
import platform
import sys
import time

ARGUMENTS = argparse.ArgumentParser()
ARGUMENTS.add_argument("--threads", type=int, required=True)
ARGUMENTS.add_argument("--only", default="")
ARGUMENTS.add_argument("--n", default="")
ARGUMENTS.add_argument("--seconds", type=float, default=0.3)
ARGUMENTS.add_argument("--json")
OPTIONS = ARGUMENTS.parse_args()
os.environ["OMP_NUM_THREADS"] = str(OPTIONS.threads)

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

BASE_ROWS = 256
LARGE = [1, 8, 32, 128, 512]
SHAPES = [(4096, 4096, LARGE), (4096, 11008, LARGE), (4096, 14336, LARGE), (2048, 5632, LARGE), (784, 256, [64]), (384, 1536, [256])]
MIN_RUNS, MAX_RUNS = 3, 15
MAX_SESSIONS = 64
ROWS = []
VNNI = torch.cpu._is_vnni_supported()
ISA = os.environ.get("ONEDNN_MAX_CPU_ISA")


def last_level_cache():
    sizes = [0]
    for index in range(5):
        try:
            text = open(f"/sys/devices/system/cpu/cpu0/cache/index{index}/size").read().strip()
            sizes.append(int(text.rstrip("K")) * 1024)
        except (OSError, ValueError):
            pass
    return max(sizes)


ROTATION = max(256 << 20, 2 * last_level_cache())


def copies(size):
    return -(-ROTATION // size)


def wants(peer, dtypes):
    return any(text in f"{peer} {dtypes}" for text in OPTIONS.only.split(","))


class Problem:
    """One size: the first rows of the weight [BASE_ROWS, K], which repeat, and activations."""

    def __init__(self, k, n, ms):
        self.k, self.n, self.ms = k, n, ms
        rng = np.random.default_rng(1)
        self.base = rng.uniform(-1, 1, (BASE_ROWS, k)).astype(np.float32)
        self.x = rng.uniform(-1, 1, (ms[-1], k)).astype(np.float32)

    def repeat(self, rows):
        return np.tile(rows, (self.n // BASE_ROWS,) + (1,) * (rows.ndim - 1))

    def quantized(self, group, limit):
        """Symmetric codes [BASE_ROWS, K] and scales [BASE_ROWS, K / group]."""
        values = self.base.reshape(BASE_ROWS, -1, group)
        scales = np.abs(values).max(-1, keepdims=True) / limit
        codes = np.clip(np.rint(values / scales), -limit, limit).astype(np.int8)
        return codes.reshape(BASE_ROWS, self.k), scales[..., 0].astype(np.float32)

    def row(self, peer, dtypes, name, group, m, limit, run):
        """Checks and times `run`, which multiplies the first `m` activations with the weight of a turn."""
        y = np.asarray(run(0))[: m, : BASE_ROWS].astype(np.float64)
        want = self.x[[0, m - 1]].astype(np.float64) @ self.base.T.astype(np.float64)
        error = np.linalg.norm(y[[0, m - 1]] - want) / np.linalg.norm(want)
        assert error <= limit, f"{peer} {dtypes} {name}: relative error {error}"
        turn = 0

        def timed():
            nonlocal turn
            turn += 1
            start = time.perf_counter()
            run(turn)
            return time.perf_counter() - start

        once = timed()
        times = [] if once < 0.2 else [once]
        wanted = min(max(int(OPTIONS.seconds / once), MIN_RUNS), MAX_RUNS) | 1
        while len(times) < wanted:
            times.append(timed())
        ms = sorted(times)[len(times) // 2] * 1e3
        rate = 2 * m * self.k * self.n / ms / 1e6
        tier = name + (f", {ISA}" if ISA and peer.startswith("torch") else "")
        print(f"{peer:<12} {dtypes:<8} {group or '-':>5} {OPTIONS.threads:>3} {m:>4} {self.k:>5} {self.n:>5} {ms:>10.4f} ms {rate:>8.1f} GOP/s  {tier}", flush=True)
        ROWS.append({"kernel": f"{dtypes} {peer}", "tier": tier, "threads": OPTIONS.threads, "m": m, "k": self.k, "n": self.n, "group": group, "ms": ms, "runs": len(times)})


def sweep(problem, peer, dtypes, name, group, limit, weights, product, dtype=torch.float32):
    for m in problem.ms:
        x = torch.from_numpy(problem.x[:m]).to(dtype)

        def run(turn):
            y = product(x, weights[turn % len(weights)])
            return y.float().numpy() if turn == 0 else y

        problem.row(peer, dtypes, name, group, m, limit, run)


def torch_floats(problem):
    for dtype, dtypes, limit in [(torch.float32, "f32f32", 1e-4), (torch.bfloat16, "bf16bf16", 0.02)]:
        if wants("torch", dtypes):
            weight = torch.from_numpy(problem.repeat(problem.base)).to(dtype)
            weights = [weight.clone() for _ in range(copies(weight.nbytes))]
            sweep(problem, "torch", dtypes, "linear", None, limit, weights, torch.nn.functional.linear, dtype)


def torch_int8(problem):
    if not wants("torch", "i8i8"):
        return
    codes, scales = problem.quantized(problem.k, 127)
    codes, scales = torch.from_numpy(problem.repeat(codes)), torch.from_numpy(problem.repeat(scales)[:, 0]).double()
    zeros = torch.zeros(problem.n, dtype=torch.int64)
    weight = torch._make_per_channel_quantized_tensor(codes, scales, zeros, 0)
    # A weight of oneDNN is reordered at the first product, so each copy is run before it is timed.
    for engine in ["onednn", "fbgemm"]:
        torch.backends.quantized.engine = engine
        weights = [torch.ops.quantized.linear_prepack(weight, None) for _ in range(copies(codes.nbytes))]
        # Without VNNI its products saturate, unless activations keep to 7 bits.
        product = lambda x, weight: torch.ops.quantized.linear_dynamic(x, weight, not VNNI)
        for copy in weights:
            for m in problem.ms:
                if m <= 32 or len(problem.ms) == 1:
                    product(torch.from_numpy(problem.x[:m]), copy)
        sweep(problem, "torch", "i8i8", f"linear_dynamic {engine}", None, 0.04, weights, product)


def torch_weight_only(problem):
    bf16 = torch.bfloat16
    if wants("torch", "bf16i8"):
        codes, scales = problem.quantized(problem.k, 127)
        weight, scales = torch.from_numpy(problem.repeat(codes)), torch.from_numpy(problem.repeat(scales)[:, 0]).to(bf16)
        weights = [weight.clone() for _ in range(copies(weight.nbytes))]
        product = lambda x, weight: torch.ops.aten._weight_int8pack_mm(x, weight, scales)
        sweep(problem, "torch", "bf16i8", "int8pack", None, 0.04, weights, product, bf16)
    for group in [32, 128]:
        if problem.k % group or not wants("torch", "bf16u4"):
            continue
        codes, scales = problem.quantized(group, 7)
        codes = torch.from_numpy(problem.repeat(codes)).int() + 8
        scales = torch.from_numpy(problem.repeat(scales)).to(bf16).t().contiguous()
        scales_and_zeros = torch.stack([scales, torch.zeros_like(scales)], dim=-1).contiguous()
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 2)
        weights = [(packed.clone(), scales_and_zeros.clone()) for _ in range(copies(packed.nbytes + scales_and_zeros.nbytes))]
        product = lambda x, weight: torch.ops.aten._weight_int4pack_mm_for_cpu(x, weight[0], group, weight[1])
        sweep(problem, "torch", "bf16u4", "int4pack", group, 0.2, weights, product, bf16)


def model(nodes, initializers, k, n):
    graph = helper.make_graph(
        nodes, "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["m", k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", n])],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(graph, opset_imports=opsets)
    made.ir_version = 10
    return made.SerializeToString()


def session(data):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = OPTIONS.threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def sweep_ort(problem, dtypes, name, group, limit, size, nodes, initializers):
    data = model(nodes, initializers, problem.k, problem.n)
    sessions = [session(data) for _ in range(min(copies(size), MAX_SESSIONS))]
    for m in problem.ms:
        x = onnxruntime.OrtValue.ortvalue_from_numpy(problem.x[:m])
        y = onnxruntime.OrtValue.ortvalue_from_shape_and_type([m, problem.n], np.float32)
        bindings = []
        for one in sessions:
            binding = one.io_binding()
            binding.bind_ortvalue_input("x", x)
            binding.bind_ortvalue_output("y", y)
            bindings.append(binding)

        def run(turn):
            sessions[turn % len(sessions)].run_with_iobinding(bindings[turn % len(sessions)])
            return y.numpy() if turn == 0 else None

        problem.row("onnxruntime", dtypes, name, group, m, limit, run)


def onnxruntime_all(problem):
    k, n = problem.k, problem.n
    if wants("onnxruntime", "f32f32"):
        weight = np.ascontiguousarray(problem.repeat(problem.base).T)
        sweep_ort(problem, "f32f32", "MatMul", None, 1e-4, weight.nbytes, [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight})
    if wants("onnxruntime", "i8i8"):
        # Without VNNI its products saturate, unless weights keep to 7 bits.
        codes, scales = problem.quantized(k, 127 if VNNI else 63)
        weight = {"w": np.ascontiguousarray(problem.repeat(codes).T), "s": problem.repeat(scales)[:, 0].copy(), "z": np.zeros(n, np.int8)}
        node = helper.make_node("DynamicQuantizeMatMul", ["x", "w", "s", "z"], ["y"], domain="com.microsoft")
        sweep_ort(problem, "i8i8", "DynamicQuantizeMatMul", None, 0.04, n * k, [node], weight)
    for bits, group, level, dtypes in [(4, 32, 4, "i8i4"), (4, 128, 4, "i8i4"), (8, 128, 4, "i8i8"), (4, 128, 0, "f32i4"), (4, 32, 0, "f32i4")]:
        if k % group or not wants("onnxruntime", dtypes):
            continue
        codes, scales = problem.quantized(group, 2 ** (bits - 1) - 1)
        codes = (codes.astype(np.int16) + 2 ** (bits - 1)).astype(np.uint8)
        codes = codes[:, 0::2] | codes[:, 1::2] << 4 if bits == 4 else codes
        weight = {"w": problem.repeat(codes).reshape(n, k // group, group * bits // 8), "s": problem.repeat(scales).reshape(-1)}
        node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=k, N=n, bits=bits, block_size=group, accuracy_level=level)
        sweep_ort(problem, dtypes, f"MatMulNBits level {level}", group, 0.2 if bits == 4 else 0.04, n * k * bits // 8 + n * k // group * 4, [node], weight)


def cpu_name():
    try:
        names = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor()


def main():
    torch.set_num_threads(OPTIONS.threads)
    torch.set_grad_enabled(False)
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    print(f"{cpu_name()}; {versions}; oneDNN {'up to ' + ISA if ISA else 'as it comes'}")
    for shape in SHAPES:
        if OPTIONS.n and str(shape[1]) not in OPTIONS.n.split(","):
            continue
        problem = Problem(*shape)
        for part in [torch_int8, torch_weight_only, onnxruntime_all, torch_floats]:
            try:
                part(problem)
            except (RuntimeError, AttributeError, AssertionError) as error:
                print(f"{part.__name__} {shape[:2]}: {error}", file=sys.stderr)
        if OPTIONS.json:
            write(versions)


def write(versions):
    """What has been measured so far."""
    command = f"ONEDNN_MAX_CPU_ISA={ISA} " if ISA else ""
    report = {"command": command + "cpu_peers.py " + " ".join(sys.argv[1:]), "peers": versions, "machine": {"cpu": cpu_name()}, "rows": ROWS}
    with open(OPTIONS.json, "w") as file:
        json.dump(report, file, indent=1)
        file.write("\n")


main()
