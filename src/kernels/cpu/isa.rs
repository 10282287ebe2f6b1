//! What an instruction set must bring. Algorithms are written once over this trait; an ISA file only instantiates it.

#[cfg(target_arch = "x86_64")]
use super::avx2::{Avx2, AvxVnni};
#[cfg(target_arch = "x86_64")]
use super::avx512::{Avx512, Avx512Vnni};
use super::bf16::Bf16;
use super::layout::{CHANNELS, Lanes, Line, unpack_quad};
#[cfg(target_arch = "aarch64")]
use super::neon::{NeonDot, NeonI8mm};
use super::round::round_all;
use super::scalar::Scalar;
use super::tier::Tier;
use crate::dtype::FloatDtype;

/// The instructions of one tier, on 16 lanes: one for each channel of a panel.
///
/// A value of an implementing type is the proof that this machine has the instructions.
pub trait Isa: Copy + Send + Sync + 'static {
    /// 16 integers.
    type I32: Copy;
    /// 16 floats.
    type F32: Copy;
    /// 64 weight codes, one a byte.
    type Bytes: Copy;
    /// The same, ready to be multiplied.
    type Weights: Copy;
    /// Four activation codes, ready to be broadcast.
    type Quad: Copy + Default + Send + Sync;

    /// What [`Isa::weights`] subtracts from each code.
    const WEIGHT_SHIFT: i32 = 0;
    /// What [`Isa::floats`] wants to have added to its `zero`.
    const FLOAT_SHIFT: f32 = 0.0;
    /// Whether there are 32 registers of 16 lanes.
    const WIDE: bool = false;
    /// Rows that an integer block takes at once, largest first: as many as have their sums in registers.
    const ROWS: &'static [usize] = &[4, 2, 1];
    /// The same for codes of 8 bits that several blocks read as [`Isa::store_pairs`] writes them; empty where none do.
    const PAIR_ROWS: &'static [usize] = &[];
    /// Tiles of a chunk of all its panels, where groups are not longer. By default their codes are 16 KiB, which the first-level cache keeps
    /// beside the activations.
    const CHUNK: usize = 32;
    /// The same for so many rows that codes from a second-level cache keep up.
    const LONG_CHUNK: usize = Self::CHUNK;
    /// Whether products of codes below 8 bits are summed in 16 bits first.
    const NARROW: bool = false;
    /// Whether [`Isa::mul_add`] rounds once.
    const FUSED: bool = false;

    /// Runs a block compiled for these instructions.
    fn enter<B: Block<Self>>(self, block: B);

    /// Four activation codes as an operand of [`Isa::dot`].
    fn quad(codes: [i8; 4]) -> Self::Quad;
    /// Four activation codes as an operand of [`Isa::narrow_dot`].
    fn narrow_quad(codes: [i8; 4]) -> Self::Quad {
        Self::quad(codes)
    }
    /// Four [`Isa::quad`]s.
    #[inline(always)]
    fn quads(self, codes: &[[i8; 4]; 4]) -> [Self::Quad; 4] {
        codes.map(Self::quad)
    }
    /// Value i of each of four rows, for each i.
    #[inline(always)]
    fn transpose(self, [a, b, c, d]: [&[f32; 4]; 4]) -> [[f32; 4]; 4] {
        let mut out = [[0.0; 4]; 4];
        for (i, out) in out.iter_mut().enumerate() {
            *out = [a[i], b[i], c[i], d[i]];
        }
        out
    }
    /// The unsigned weight codes of a line.
    fn load_bytes(self, line: &Line) -> Self::Bytes;
    /// The unsigned weight codes of quad `Q` of a tile.
    #[inline(always)]
    fn bytes<const BITS: usize, const Q: usize>(self, tile: &[Line; BITS]) -> Self::Bytes {
        let mut quad = Line::ZERO;
        if BITS == 8 {
            quad = tile[Q % BITS];
        } else {
            unpack_quad::<BITS, Q>(tile, &mut quad);
        }
        self.load_bytes(&quad)
    }
    /// Writes the codes of a line.
    fn store_bytes(self, bytes: Self::Bytes, to: &mut Line);
    /// Unsigned weight codes as an operand.
    fn weights(self, bytes: Self::Bytes) -> Self::Weights;
    /// `acc[c] + Σ_i w[c][i] · x[i]`, exact modulo 2^32.
    fn dot(self, acc: Self::I32, w: Self::Weights, x: Self::Quad) -> Self::I32;

    /// As [`Isa::dot`], in two sums of 16 bits a lane that the caller keeps from overflowing; only where [`Isa::NARROW`].
    fn narrow_dot(self, _sums: Self::I32, _w: Self::Bytes, _x: Self::Quad) -> Self::I32 {
        unreachable!("narrow sums belong to tiers without a dot product of bytes")
    }
    /// Adds both sums of [`Isa::narrow_dot`] to each lane.
    fn add_narrow(self, _acc: Self::I32, _sums: Self::I32) -> Self::I32 {
        unreachable!("narrow sums belong to tiers without a dot product of bytes")
    }
    /// The codes of a line in 16 bits each: 0 and 2 of each channel, then 1 and 3; only where [`Isa::PAIR_ROWS`] names blocks.
    fn store_pairs(self, _bytes: Self::Bytes, _to: &mut [Line; 2]) {
        unreachable!("pairs belong to tiers without a dot product of bytes")
    }
    /// As [`Isa::dot`] over codes 0 and 2, or 1 and 3 where `ODD`, that [`Isa::store_pairs`] wrote.
    fn dot_pairs<const ODD: bool>(self, _acc: Self::I32, _pairs: Self::Bytes, _x: Self::Quad) -> Self::I32 {
        unreachable!("pairs belong to tiers without a dot product of bytes")
    }
    /// A value inside 16 bits as [`Isa::mul_small`] wants it.
    #[inline(always)]
    fn small(value: i32) -> i32 {
        value
    }
    /// `acc + a · b` inside 32 bits, with a and b inside 16 bits, b made by [`Isa::small`].
    #[inline(always)]
    fn mul_small(self, acc: Self::I32, a: Self::I32, b: i32) -> Self::I32 {
        self.add_i32(acc, self.mul_i32(a, self.splat_i32(b)))
    }
    /// Asks for the cache line of a value that will be used soon, in the nearest cache or the next one. A hint.
    #[inline(always)]
    fn prefetch<T>(self, _at: &T, _near: bool) {}

    /// The same integer in each lane.
    fn splat_i32(self, value: i32) -> Self::I32;
    /// Reads 16 integers.
    fn load_i32(self, from: &Lanes<i32>) -> Self::I32;
    /// Writes 16 integers.
    fn store_i32(self, value: Self::I32, to: &mut Lanes<i32>);
    /// Wrapping sum.
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Wrapping product.
    fn mul_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Rounds to the nearest float, ties to even.
    fn to_f32(self, value: Self::I32) -> Self::F32;
    /// The bits of floats.
    fn bits_of_float(self, value: Self::F32) -> Self::I32;
    /// The floats of these bits.
    fn float_of_bits(self, bits: Self::I32) -> Self::F32;
    /// The largest power of two that is not above the magnitude of each lane; 0 for 0. Lanes are 0 or normal.
    fn power(self, value: Self::F32) -> Self::F32;
    /// The low byte of each lane.
    fn low_bytes(self, value: Self::I32, to: &mut [i8; CHANNELS]);

    /// The same float in each lane.
    fn splat(self, value: f32) -> Self::F32;
    /// Reads 16 floats.
    fn load(self, from: &Lanes<f32>) -> Self::F32;
    /// Writes 16 floats.
    fn store(self, value: Self::F32, to: &mut Lanes<f32>);
    /// Writes 16 floats anywhere.
    #[inline(always)]
    fn write(self, value: Self::F32, to: &mut [f32; CHANNELS]) {
        let mut lanes = Lanes([0.0; CHANNELS]);
        self.store(value, &mut lanes);
        *to = lanes.0;
    }
    /// Rounded sum.
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Rounded product.
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `b` where it is smaller, else `a`.
    fn smaller(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `b` where it is larger, else `a`.
    fn larger(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a · b + c`, rounded once or twice: only for float products, whose order is free.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `f32(code) − zero`, exact, of each k of a line; `zero` holds integers plus [`Isa::FLOAT_SHIFT`].
    fn floats(self, line: &Line, zero: Self::F32) -> [Self::F32; 4];

    /// The instructions of products with float activations: of tiers that differ in integer products only, one.
    type Float: Isa;
    /// Whether float products of codes of 1 or 2 bits use [`Isa::lookup`].
    const LOOKUP: bool = false;
    /// Panels whose codes are expanded in registers for one row of floats; 0 where those of no product are.
    const ONE_ROW: usize = 0;

    /// Whether products with float activations scale each weight of a group rather than sums: chains of sums then go on from group to group.
    /// Such a tier has [`Isa::zeros`], [`Isa::decode_high`], [`Isa::byte`] and [`Isa::pin`].
    const SCALED: bool = false;

    /// Whether it has [`Isa::enter_bf16`], [`Isa::dot_bf16`] and [`Isa::pair_bf16`] where the machine proves them.
    const BF16: bool = false;

    /// The instructions of products with float activations.
    fn float(self) -> Self::Float;
    /// What [`Isa::decode`] needs for `bits`-bit codes less one zero point.
    #[inline(always)]
    fn decoder(self, _bits: usize, zero: i32) -> Decoder<Self::F32> {
        Decoder {
            table: self.splat(0.0),
            zero: self.splat(zero as f32 + Self::FLOAT_SHIFT),
        }
    }
    /// What [`Isa::decode`] needs for `bits`-bit codes less a zero point of each channel.
    #[inline(always)]
    fn channel_decoder(self, _bits: usize, zero: &[u8; CHANNELS]) -> Decoder<Self::F32> {
        let zero = self.to_f32(self.load_i32(&widen(zero, 0)));
        Decoder {
            table: self.splat(0.0),
            zero: self.add(zero, self.splat(Self::FLOAT_SHIFT)),
        }
    }
    /// `f32(code) − zero`, exact, of each k of quad `Q` of a tile; `SHARED` where the decoder is that of [`Isa::decoder`].
    #[inline(always)]
    fn decode<const BITS: usize, const Q: usize, const SHARED: bool>(
        self,
        tile: &[Line; BITS],
        decoder: &Decoder<Self::F32>,
    ) -> [Self::F32; 4] {
        let mut quad = Line::ZERO;
        if BITS == 8 {
            quad = tile[Q % BITS];
        } else {
            unpack_quad::<BITS, Q>(tile, &mut quad);
        }
        self.floats(&quad, decoder.zero)
    }
    /// Zero points of channels as [`Isa::decode_high`] wants them.
    fn zeros(self, _zero: &[u8; CHANNELS]) -> Self::Bytes {
        unreachable!("zero points of tiers that scale each weight")
    }
    /// `(code − zero) · 2^24` of each k of quad `Q` of a tile, for differences that a signed byte holds.
    fn decode_high<const BITS: usize, const Q: usize>(
        self,
        _tile: &[Line; BITS],
        _zero: Self::Bytes,
    ) -> [Self::F32; 4] {
        unreachable!("codes of tiers that scale each weight")
    }
    /// Byte `I` of each channel where it lies: a float times 2^(8 · I), the last one as it is.
    fn byte<const I: usize>(self, _codes: Self::Bytes) -> Self::F32 {
        unreachable!("codes of tiers that scale each weight")
    }
    /// Leaves the sums as they are, in registers at this point, where other memory counts as written: a compiler that computes weights of
    /// later k ahead would keep the sums in memory.
    fn pin(self, _sums: &mut [Self::F32; 2]) {
        unreachable!("sums of tiers that scale each weight")
    }
    /// Runs a block that calls [`Isa::dot_bf16`].
    fn enter_bf16<B: Block<Self>>(self, _proof: Bf16, _block: B) {
        unreachable!("pairs of bf16 on an instruction set without them")
    }
    /// `acc + x0 · w0 + x1 · w1` of the bf16 halves of each lane, low first; x is the same for all. Each sum is rounded to nearest; subnormal
    /// values count as 0 on the way in and out.
    fn dot_bf16(self, _proof: Bf16, _acc: Self::F32, _w: Self::Bytes, _x: u32) -> Self::F32 {
        unreachable!("pairs of bf16 on an instruction set without them")
    }
    /// The bf16 of each lane, `even` low; values that bf16 holds.
    fn pair_bf16(self, _even: Self::F32, _odd: Self::F32) -> Self::Bytes {
        unreachable!("pairs of bf16 on an instruction set without them")
    }
    /// Of each channel's 32 bits, the four from `SHIFT` on select a lane of `table`.
    #[inline(always)]
    fn lookup<const SHIFT: u32>(self, codes: Self::Bytes, table: Self::F32) -> Self::F32 {
        let (mut line, mut from, mut out) = (Line::ZERO, Lanes([0.0; CHANNELS]), Lanes([0.0; CHANNELS]));
        self.store_bytes(codes, &mut line);
        self.store(table, &mut from);
        for (out, bytes) in out.0.iter_mut().zip(line.0.as_chunks::<4>().0) {
            *out = from.0[(u32::from_le_bytes(*bytes) >> SHIFT & 15) as usize];
        }
        self.load(&out)
    }
    /// As [`FloatDtype::round`] in each lane.
    #[inline(always)]
    fn round(self, dtype: FloatDtype, value: Self::F32) -> Self::F32 {
        let mut lanes = Lanes([0.0; CHANNELS]);
        self.store(value, &mut lanes);
        round_all(dtype, &mut lanes.0);
        self.load(&lanes)
    }
}

/// From codes of one width to floats: what a lookup yields, and what is subtracted after it.
#[derive(Clone, Copy)]
pub struct Decoder<F> {
    /// Values of the first 16 codes, where an instruction set looks them up: AVX-512 does.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub table: F,
    /// Zero points, where they are not in the table.
    pub zero: F,
}

/// A piece of work that is compiled once for each instruction set. `run` must be `#[inline(always)]`.
pub trait Block<I: Isa> {
    /// Does it.
    fn run(self, isa: I);
}

/// A whole operation, written once over every instruction set.
pub trait Program {
    /// Does it.
    fn run<I: Isa>(self, isa: I);
}

/// Runs a program on a tier.
///
/// # Panics
/// If this machine cannot run the tier.
pub fn run_on(tier: Tier, program: impl Program) {
    if !can_run(tier) {
        let available: Vec<_> = Tier::available().iter().map(|tier| tier.name()).collect();
        panic!(
            "this machine cannot run the CPU tier `{tier}`; it can run: {}",
            available.join(", ")
        );
    }
    const CAN: &str = "the machine can run the tier";
    match tier {
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512Vnni => program.run(Avx512Vnni::new().expect(CAN)),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 => program.run(Avx512::new().expect(CAN)),
        #[cfg(target_arch = "x86_64")]
        Tier::AvxVnni => program.run(AvxVnni::new().expect(CAN)),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => program.run(Avx2::new().expect(CAN)),
        #[cfg(target_arch = "aarch64")]
        Tier::NeonI8mm => program.run(NeonI8mm::new().expect(CAN)),
        #[cfg(target_arch = "aarch64")]
        Tier::NeonDot => program.run(NeonDot::new().expect(CAN)),
        _ => program.run(Scalar),
    }
}

/// Whether this machine has the instructions of a tier.
pub fn can_run(tier: Tier) -> bool {
    match tier {
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512Vnni => Avx512Vnni::new().is_some(),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 => Avx512::new().is_some(),
        #[cfg(target_arch = "x86_64")]
        Tier::AvxVnni => AvxVnni::new().is_some(),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => Avx2::new().is_some(),
        #[cfg(target_arch = "aarch64")]
        Tier::NeonI8mm => NeonI8mm::new().is_some(),
        #[cfg(target_arch = "aarch64")]
        Tier::NeonDot => NeonDot::new().is_some(),
        other => other == Tier::Scalar,
    }
}

/// Codes 0 and 2, then 1 and 3, in 16 bits each, low first: the operand of 16-bit pair products.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn pairs(codes: [i8; 4]) -> (i32, i32) {
    let [a, c, b, d] = codes.map(|code| code as u16 as u32);
    ((a | b << 16) as i32, (c | d << 16) as i32)
}

/// 16 bytes as integers, less `shift`.
#[inline(always)]
pub fn widen(bytes: &[u8; CHANNELS], shift: i32) -> Lanes<i32> {
    let mut out = Lanes([0; CHANNELS]);
    for (out, byte) in out.0.iter_mut().zip(bytes) {
        *out = *byte as i32 - shift;
    }
    out
}
