//! Plain Rust: the tier that every machine has.

use super::isa::{Block, Isa};
use super::layout::{CHANNELS, Lanes, Line};

/// Plain Rust.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

#[inline(always)]
fn map<T: Copy, U: Copy + Default>(a: [T; CHANNELS], b: [T; CHANNELS], f: impl Fn(T, T) -> U) -> [U; CHANNELS] {
    let mut out = [U::default(); CHANNELS];
    for c in 0..CHANNELS {
        out[c] = f(a[c], b[c]);
    }
    out
}

impl Isa for Scalar {
    type Float = Scalar;
    const LOOKUP: bool = true;

    #[inline(always)]
    fn float(self) -> Scalar {
        self
    }
    type I32 = [i32; CHANNELS];
    type F32 = [f32; CHANNELS];
    type Bytes = [u8; 64];
    type Weights = [u8; 64];
    type Quad = [i8; 4];

    #[inline(always)]
    fn enter<B: Block<Self>>(self, block: B) {
        block.run(self);
    }
    #[inline(always)]
    fn quad(codes: [i8; 4]) -> [i8; 4] {
        codes
    }
    #[inline(always)]
    fn load_bytes(self, line: &Line) -> [u8; 64] {
        line.0
    }
    #[inline(always)]
    fn store_bytes(self, bytes: [u8; 64], to: &mut Line) {
        to.0 = bytes;
    }
    #[inline(always)]
    fn weights(self, bytes: [u8; 64]) -> [u8; 64] {
        bytes
    }
    #[inline(always)]
    fn dot(self, mut acc: [i32; CHANNELS], w: [u8; 64], x: [i8; 4]) -> [i32; CHANNELS] {
        for (c, acc) in acc.iter_mut().enumerate() {
            for (i, x) in x.iter().enumerate() {
                *acc = acc.wrapping_add(w[c * 4 + i] as i32 * *x as i32);
            }
        }
        acc
    }
    #[inline(always)]
    fn splat_i32(self, value: i32) -> [i32; CHANNELS] {
        [value; CHANNELS]
    }
    #[inline(always)]
    fn load_i32(self, from: &Lanes<i32>) -> [i32; CHANNELS] {
        from.0
    }
    #[inline(always)]
    fn store_i32(self, value: [i32; CHANNELS], to: &mut Lanes<i32>) {
        to.0 = value;
    }
    #[inline(always)]
    fn add_i32(self, a: [i32; CHANNELS], b: [i32; CHANNELS]) -> [i32; CHANNELS] {
        map(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn mul_i32(self, a: [i32; CHANNELS], b: [i32; CHANNELS]) -> [i32; CHANNELS] {
        map(a, b, i32::wrapping_mul)
    }
    #[inline(always)]
    fn to_f32(self, value: [i32; CHANNELS]) -> [f32; CHANNELS] {
        map(value, value, |a, _| a as f32)
    }
    #[inline(always)]
    fn bits_of_float(self, value: [f32; CHANNELS]) -> [i32; CHANNELS] {
        map(value, value, |a, _| a.to_bits() as i32)
    }
    #[inline(always)]
    fn float_of_bits(self, bits: [i32; CHANNELS]) -> [f32; CHANNELS] {
        map(bits, bits, |a, _| f32::from_bits(a as u32))
    }
    #[inline(always)]
    fn power(self, value: [f32; CHANNELS]) -> [f32; CHANNELS] {
        map(value, value, |a, _| f32::from_bits(a.to_bits() & 0x7f80_0000))
    }
    #[inline(always)]
    fn low_bytes(self, value: [i32; CHANNELS], to: &mut [i8; CHANNELS]) {
        *to = map(value, value, |a, _| a as i8);
    }
    #[inline(always)]
    fn splat(self, value: f32) -> [f32; CHANNELS] {
        [value; CHANNELS]
    }
    #[inline(always)]
    fn load(self, from: &Lanes<f32>) -> [f32; CHANNELS] {
        from.0
    }
    #[inline(always)]
    fn store(self, value: [f32; CHANNELS], to: &mut Lanes<f32>) {
        to.0 = value;
    }
    #[inline(always)]
    fn add(self, a: [f32; CHANNELS], b: [f32; CHANNELS]) -> [f32; CHANNELS] {
        map(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn mul(self, a: [f32; CHANNELS], b: [f32; CHANNELS]) -> [f32; CHANNELS] {
        map(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn smaller(self, a: [f32; CHANNELS], b: [f32; CHANNELS]) -> [f32; CHANNELS] {
        map(a, b, |a, b| if b < a { b } else { a })
    }
    #[inline(always)]
    fn larger(self, a: [f32; CHANNELS], b: [f32; CHANNELS]) -> [f32; CHANNELS] {
        map(a, b, |a, b| if b > a { b } else { a })
    }
    #[inline(always)]
    fn mul_add(self, a: [f32; CHANNELS], b: [f32; CHANNELS], c: [f32; CHANNELS]) -> [f32; CHANNELS] {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn floats(self, line: &Line, zero: [f32; CHANNELS]) -> [[f32; CHANNELS]; 4] {
        let mut out = [[0.0; CHANNELS]; 4];
        for (i, out) in out.iter_mut().enumerate() {
            for c in 0..CHANNELS {
                out[c] = line.0[c * 4 + i] as f32 - zero[c];
            }
        }
        out
    }
}
