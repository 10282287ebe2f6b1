#!/usr/bin/env python3
"""torch on the shapes of `benches/gpu_linear`.

    gpu_peers.py [--goals] [--only TEXT,...] [--m LIST] [--shapes KxN,...] [--torchao] [--minutes N] [--json FILE]     needs torch with CUDA

y[M, N] = x[M, K] · W[K, N], µs: the median of 20 replays of a CUDA graph of 200 launches (fewer where one takes more than a millisecond).
Weights rotate through 256 MB, and at least 4 copies. Answers are checked against a float product first. Peers: `bf16` (cuBLAS), `int4pack` (tinygemm,
`_weight_int4pack_mm` g128), `int_mm` (the raw int8 product), `scaled_mm` (fp8 row-wise, codes given), and with `--torchao` its compiled int8 dynamic
layer (compiling takes a while). `--json` writes one object a line as rows come. A peer that does not run says why and is left out.
"""
import argparse
import datetime
import json
import sys
import time

import torch

ARGUMENTS = argparse.ArgumentParser()
ARGUMENTS.add_argument("--goals", action="store_true")
ARGUMENTS.add_argument("--only", default="")
ARGUMENTS.add_argument("--m")
ARGUMENTS.add_argument("--shapes")
ARGUMENTS.add_argument("--torchao", action="store_true")
ARGUMENTS.add_argument("--minutes", type=float, default=5)
ARGUMENTS.add_argument("--json")
ARGUMENTS.add_argument("--device", default="cuda", help="cpu: only to see that the script runs")
OPTIONS = ARGUMENTS.parse_args()

DEVICE = torch.device(OPTIONS.device)
CUDA = DEVICE.type == "cuda"
SHAPES = [(4096, 4096), (4096, 14336), (14336, 4096)]
ROWS = [1, 4, 16, 64, 256, 1024, 4096]
GROUP = 128
ROTATION = 256 << 20
END = time.monotonic() + 60 * OPTIONS.minutes
# What the goal table asks of each peer, by the number of rows.
GOALS = {"bf16": lambda m, k, n: True, "int4pack": lambda m, k, n: m <= 256, "int_mm": lambda m, k, n: m >= 256 and k == n, "scaled_mm": lambda m, k, n: k == n, "torchao-int8": lambda m, k, n: k == n and m in (16, 256, 4096)}
if OPTIONS.m:
    ROWS = [int(m) for m in OPTIONS.m.split(",")]
if OPTIONS.shapes:
    SHAPES = [tuple(int(size) for size in shape.split("x")) for shape in OPTIONS.shapes.split(",")]
FILE = open(OPTIONS.json, "w") if OPTIONS.json else None


def write(value):
    if FILE:
        FILE.write(json.dumps(value) + "\n")
        FILE.flush()


def sync():
    if CUDA:
        torch.cuda.synchronize()


def seconds(run):
    sync()
    start = time.perf_counter()
    run()
    sync()
    return time.perf_counter() - start


def timed(product, weights):
    """Median seconds of a launch, and whether a graph was replayed."""
    for turn in range(3):
        product(weights[turn % len(weights)])
    once = min(seconds(lambda: product(weights[0])) for _ in range(3))
    launches = 200 if once < 1e-3 else max(4, int(0.2 / once))
    if not CUDA:
        launches = 4

    def flight():
        for turn in range(launches):
            product(weights[turn % len(weights)])

    run, graph = flight, False
    if CUDA:
        try:
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured):
                flight()
            run, graph = captured.replay, True
        except Exception as error:  # some operations wait for the device
            print(f"  no graph: {str(error).splitlines()[0]}")
            torch.cuda.synchronize()
    run()
    times = sorted(seconds(run) / launches for _ in range(20))
    return times[9], graph


def copies(make, size):
    return [make() for _ in range(max(4, -(-ROTATION // size)))] if CUDA else [make() for _ in range(2)]


class Peer:
    """Makes weights of one size (each copy random), and multiplies."""

    name = ""
    limit = 0.02

    def weights(self, k, n):
        raise NotImplementedError

    def product(self, m, k):
        """A function of a weight, and `want(weight)`, the float product that it stands for."""
        raise NotImplementedError


def uniform(*shape, dtype=torch.bfloat16):
    return (torch.rand(*shape, device=DEVICE) * 2 - 1).to(dtype)


class Bf16(Peer):
    name = "bf16"

    def weights(self, k, n):
        # As nn.Linear keeps it: [N, K].
        return copies(lambda: uniform(n, k), 2 * k * n)

    def product(self, m, k):
        x = uniform(m, k)
        return (lambda w: torch.nn.functional.linear(x, w)), (lambda w: x.float() @ w.float().T)


class Int4Pack(Peer):
    name = "int4pack"

    def weights(self, k, n):
        def make():
            codes = torch.randint(0, 256, (n, k // 2), device=DEVICE, dtype=torch.int32).to(torch.uint8)
            packed = torch.ops.aten._convert_weight_to_int4pack(codes, 8)
            scales = uniform(k // GROUP, n, 2).contiguous()
            return packed, scales, codes

        return copies(make, k * n // 2)

    def product(self, m, k):
        x = uniform(m, k)

        def want(weight):
            _, scales, codes = weight
            # The even k of a byte is its high half.
            values = torch.stack([codes >> 4, codes & 15], -1).flatten(1).float() - 8
            scales = scales.float().repeat_interleave(GROUP, 0)
            return x.float() @ (values.T * scales[..., 0] + scales[..., 1])

        return (lambda w: torch.ops.aten._weight_int4pack_mm(x, w[0], GROUP, w[1])), want


class IntMm(Peer):
    name = "int_mm"

    def weights(self, k, n):
        return copies(lambda: torch.randint(-128, 128, (n, k), device=DEVICE, dtype=torch.int32).to(torch.int8), k * n)

    def product(self, m, k):
        x = torch.randint(-128, 128, (m, k), device=DEVICE, dtype=torch.int32).to(torch.int8)
        return (lambda w: torch._int_mm(x, w.T)), (lambda w: (x.double() @ w.double().T).float())


class ScaledMm(Peer):
    name = "scaled_mm"
    limit = 0.05

    def weights(self, k, n):
        scale = torch.ones(1, n, device=DEVICE)
        return copies(lambda: (uniform(n, k).to(torch.float8_e4m3fn), scale), k * n)

    def product(self, m, k):
        x, scale = uniform(m, k).to(torch.float8_e4m3fn), torch.ones(m, 1, device=DEVICE)
        run = lambda w: torch._scaled_mm(x, w[0].T, scale_a=scale, scale_b=w[1], out_dtype=torch.bfloat16, use_fast_accum=True)
        return run, (lambda w: x.float() @ w[0].float().T)


class TorchaoInt8(Peer):
    name = "torchao-int8"
    limit = 0.05

    def weights(self, k, n):
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        def make():
            layer = torch.nn.Linear(k, n, bias=False, device=DEVICE, dtype=torch.bfloat16)
            dense = layer.weight.detach().clone()
            quantize_(layer, Int8DynamicActivationInt8WeightConfig())
            return layer, dense

        return copies(make, k * n)

    def product(self, m, k):
        x = uniform(m, k)
        run = torch.compile(lambda layer, x: layer(x), mode="max-autotune-no-cudagraphs")
        return (lambda w: run(w[0], x)), (lambda w: x.float() @ w[1].float().T)


def wanted(peer, m, k, n):
    label = f"{peer.name} m{m} k{k} n{n} "
    texts = OPTIONS.only.split(",")
    return any(all(part in label for part in text.split("+")) for text in texts) and (not OPTIONS.goals or GOALS[peer.name](m, k, n))


def main():
    torch.manual_seed(1)
    name = torch.cuda.get_device_name() if CUDA else "cpu"
    machine = {"device": name, "torch": torch.__version__, "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(), "command": " ".join(["gpu_peers.py", *sys.argv[1:]])}
    if CUDA:
        # What our own bench measures: bytes read and written by a large copy.
        a = torch.ones(1 << 28, device=DEVICE)
        b = torch.empty_like(a)
        machine["copy"] = 2 * a.nbytes / min(seconds(lambda: b.copy_(a)) for _ in range(10))
        del a, b
    print(machine)
    write({"machine": machine})
    peers = [Bf16(), Int4Pack(), IntMm(), ScaledMm()] + ([TorchaoInt8()] if OPTIONS.torchao else [])
    for k, n in SHAPES:
        for peer in peers:
            ms = [m for m in ROWS if wanted(peer, m, k, n)]
            if not ms:
                continue
            try:
                weights = peer.weights(k, n)
            except Exception as error:
                print(f"{peer.name} {k}x{n}: {str(error).splitlines()[0]}")
                continue
            for m in ms:
                if time.monotonic() > END:
                    print("the time is over")
                    return
                try:
                    product, want = peer.product(m, k)
                    got, expected = product(weights[0]).float(), want(weights[0])
                    error = ((got - expected).norm() / expected.norm()).item()
                    assert error <= peer.limit, f"relative error {error}"
                    del got, expected
                    wall, graph = timed(product, weights)
                except Exception as error:
                    print(f"{peer.name:<13} {m:>5} {k:>6} {n:>6}  {str(error).splitlines()[0][:160]}", flush=True)
                    continue
                rate = 2 * m * k * n / wall / 1e12
                print(f"{peer.name:<13} {m:>5} {k:>6} {n:>6} {wall * 1e6:>10.2f} us {rate:>8.1f} T/s{'' if graph else '  (no graph)'}", flush=True)
                write({"peer": peer.name, "m": m, "k": k, "n": n, "wall_us": wall * 1e6, "graph": graph})
            del weights
            if CUDA:
                torch.cuda.empty_cache()


main()
