//! Matrix instructions of four planes (`wgmma`, Hopper), for which CubeCL 0.10 has no word: PTX that reaches the source of a kernel through
//! the text of a comment, which CubeCL's CUDA compiler copies as it is.
//!
//! Four neighbouring planes multiply 64 channels, 16 each, by some rows of activations. The first operand is in registers, arranged in each
//! plane as that of `m16n8k16` (halves) or `m16n8k32` (int8); the second is in shared memory, as boxes of rows of [`Rows::bytes`] that bulk
//! copies wrote with the swizzle of that size, at a multiple of 1024 bytes. Sums are arranged as those of neighbouring `m16n8` products.
//!
//! What runs between [`fence`] and [`wait`] may touch neither the sums nor first operands that an instruction was given.
//! Source: PTX ISA 8.0, "Asynchronous warpgroup level matrix multiply-accumulate instructions".

use super::ring::{Line, Pair};
use cubecl::ir::{ManagedVariable, NonSemantic, Scope, VariableKind};
use cubecl::prelude::*;

/// What rows in shared memory hold.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Rows {
    /// 64 values of f16.
    F16,
    /// 64 values of bf16.
    BF16,
    /// 64 int8.
    Int8,
}

impl Rows {
    /// Bytes of a row of a box.
    pub fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 128,
            Self::Int8 => 64,
        }
    }

    /// Bytes that an instruction takes of a row.
    pub const STEP: usize = 32;

    /// The upper half of a matrix descriptor: 8 rows are neighbours; then the swizzle.
    fn descriptor(self) -> u32 {
        let swizzle = match self {
            Self::F16 | Self::BF16 => 1,
            Self::Int8 => 2,
        };
        (8 * self.bytes() as u32 / 16) | swizzle << 30
    }

    /// The instruction for `8 · tiles` rows, and the constraint of its sums.
    fn instruction(self, tiles: usize) -> (String, &'static str, &'static str) {
        let rows = 8 * tiles;
        match self {
            Self::F16 => (format!("m64n{rows}k16.f32.f16.f16"), "+f", ", 1, 1, 0"),
            Self::BF16 => (format!("m64n{rows}k16.f32.bf16.bf16"), "+f", ", 1, 1, 0"),
            Self::Int8 => (format!("m64n{rows}k32.s32.s8.s8"), "+r", ""),
        }
    }
}

/// Statements of CUDA C++ in the place where the kernel is.
fn statements(scope: &mut Scope, text: &str) {
    scope.register(NonSemantic::Comment {
        content: format!("\n*/ {text}\n/*"),
    });
}

/// The name of an array in the source.
fn name(array: &ManagedVariable) -> String {
    match array.kind {
        VariableKind::LocalArray { id, .. } => format!("l_arr_{id}"),
        VariableKind::SharedArray { id, .. } => format!("shared_memory_{id}"),
        kind => unreachable!("{kind:?} is no array of a kernel"),
    }
}

/// Registers of an array as operands that a statement reads and writes.
fn operands(array: &ManagedVariable, constraint: &str, count: usize) -> String {
    let array = name(array);
    let all: Vec<String> = (0..count)
        .map(|at| format!("\"{constraint}\"({array}[{at}])"))
        .collect();
    all.join(", ")
}

/// First operands, `count` registers, are complete: instructions that follow may read them.
#[cube]
#[allow(unused_variables)]
pub(super) fn fence(a: &mut Array<u32>, #[comptime] count: usize) {
    intrinsic!(|scope| {
        let a = operands(&a.expand, "+r", count);
        statements(
            scope,
            &format!("asm volatile(\"wgmma.fence.sync.aligned;\" : {a} :: \"memory\");"),
        );
    });
}

/// `count` sums are what was computed so far: no compiler moves their use over this place.
#[cube]
#[allow(unused_variables)]
pub(super) fn settle<T: Numeric>(sums: &mut Array<T>, #[comptime] count: usize) {
    intrinsic!(|scope| {
        let constraint = if T::as_type(scope).elem_type().is_float() {
            "+f"
        } else {
            "+r"
        };
        let sums = operands(&sums.expand, constraint, count);
        statements(scope, &format!("asm volatile(\"\" : {sums} :: \"memory\");"));
    });
}

/// Ends a group of instructions.
#[cube]
pub(super) fn commit() {
    intrinsic!(|scope| statements(
        scope,
        "asm volatile(\"wgmma.commit_group.sync.aligned;\" ::: \"memory\");"
    ));
}

/// Waits until every group is done.
#[cube]
pub(super) fn wait() {
    intrinsic!(|scope| statements(
        scope,
        "asm volatile(\"wgmma.wait_group.sync.aligned 0;\" ::: \"memory\");"
    ));
}

/// `count` zeros for each of the tiles of a plane.
#[cube]
pub(super) fn zeros<T: Numeric>(#[comptime] tiles: usize, #[comptime] count: usize) -> Sequence<Array<T>> {
    let mut sums = Sequence::<Array<T>>::new();
    #[unroll]
    for _ in 0..tiles {
        let mut zeros = Array::<T>::new(count);
        #[unroll]
        for at in 0..count {
            zeros[at] = T::from_int(0);
        }
        sums.push(zeros);
    }
    sums
}

/// Waits for the sums of all tiles.
#[cube]
pub(super) fn finish<T: Numeric>(sums: &mut Sequence<Array<T>>, #[comptime] tiles: usize, #[comptime] count: usize) {
    wait();
    #[unroll]
    for i in 0..tiles {
        settle::<T>(sums.index_mut(i), count);
    }
}

/// The sums of `tiles` tiles of channels and `rows` tiles of rows, as products of `m16n8` have them.
#[cube]
pub(super) fn pairs<T: Numeric>(
    sums: &Sequence<Array<T>>,
    #[comptime] tiles: usize,
    #[comptime] rows: usize,
) -> Sequence<Array<Pair<T>>> {
    let mut found = Sequence::<Array<Pair<T>>>::new();
    #[unroll]
    for i in 0..tiles {
        #[unroll]
        for j in 0..rows {
            let mut tile = Array::<Pair<T>>::new(2usize);
            #[unroll]
            for h in 0..2usize {
                let mut pair = Pair::<T>::empty();
                #[unroll]
                for e in 0..2usize {
                    pair[e] = sums.index(i)[comptime!(4 * j + 2 * h + e)];
                }
                tile[h] = pair;
            }
            found.push(tile);
        }
    }
    found
}

/// The address of shared memory, as descriptors count it: in units of 16 bytes.
#[cube]
pub(super) fn address(memory: &SharedMemory<Line>) -> u32 {
    let mut found = Array::<u32>::new(1usize);
    write_address(memory, &mut found);
    found[0]
}

#[cube]
#[allow(unused_variables)]
fn write_address(memory: &SharedMemory<Line>, found: &mut Array<u32>) {
    intrinsic!(|scope| statements(
        scope,
        &format!(
            "{}[0] = static_cast<uint32>(__cvta_generic_to_shared({})) >> 4;",
            name(&found.expand),
            name(&memory.expand)
        )
    ));
}

/// `sums[64 channels, 8 · tiles rows] (+)= a · b`: 4 registers `a` from `first` on, 4 sums for each tile of 8 rows, and rows at `place`, see
/// [`address`]. Without `adds` the sums begin at 0.
#[cube]
pub(super) fn multiply<T: Numeric>(
    sums: &mut Array<T>,
    a: &Array<u32>,
    place: u32,
    #[comptime] first: usize,
    #[comptime] tiles: usize,
    #[comptime] adds: bool,
    #[comptime] rows: Rows,
) {
    let mut descriptor = Array::<u32>::new(1usize);
    descriptor[0] = place;
    execute::<T>(sums, a, &descriptor, first, tiles, adds, rows);
}

/// [`multiply`], of which the lower half of the descriptor is in an array.
#[cube]
#[allow(unused_variables)]
fn execute<T: Numeric>(
    sums: &mut Array<T>,
    a: &Array<u32>,
    descriptor: &Array<u32>,
    #[comptime] first: usize,
    #[comptime] tiles: usize,
    #[comptime] adds: bool,
    #[comptime] rows: Rows,
) {
    intrinsic!(|scope| {
        let (instruction, constraint, suffix) = rows.instruction(tiles);
        let count = 4 * tiles;
        let list = |from: usize, count: usize| {
            let names: Vec<String> = (from..from + count).map(|at| format!("%{at}")).collect();
            names.join(", ")
        };
        let array = name(&a.expand);
        let inputs: Vec<String> = (first..first + 4).map(|at| format!("\"r\"({array}[{at}])")).collect();
        statements(
            scope,
            &format!(
                "asm volatile(\"{{ .reg .pred p; .reg .b64 b; setp.ne.u32 p, {adds}, 0; mov.b64 b, {{%{low_at}, {high}}}; \
                 wgmma.mma_async.sync.aligned.{instruction} {{{sums_list}}}, {{{a_list}}}, b, p{suffix}; }}\" \
                 : {outputs} : {inputs}, \"r\"({low}[0]));",
                adds = u32::from(adds),
                low_at = count + 4,
                high = rows.descriptor(),
                sums_list = list(0, count),
                a_list = list(count, 4),
                outputs = operands(&sums.expand, constraint, count),
                inputs = inputs.join(", "),
                low = name(&descriptor.expand),
            ),
        );
    });
}
