//! A ring of stages in shared memory: one unit starts bulk copies of weights and activations some steps ahead of the planes.
//!
//! A stage holds some blocks of 64 k: the tiles of the cube's channels, and its rows. `full` counts the bytes of the copies, `empty`
//! the planes that are done with a stage.

use super::select::Tiling;
use cubecl::ir::ManagedVariable;
use cubecl::prelude::barrier::Barrier;
use cubecl::prelude::*;

/// 16 bytes.
pub(super) type Line = Vector<u32, Const<4>>;

/// Lines of a tile of channels in a block, of codes of `container` bits.
pub(super) const fn tile_lines(container: usize) -> usize {
    8 * container
}

/// The place of the shapes of tensor maps, which kernels never ask for.
///
/// CubeCL declares a parameter for the shapes of a kernel that has tensor maps, after its arrays and before its numbers. With shapes of no
/// dims it uploads none, which saves a copy before each launch, and hands none over; any array, given last, takes the place.
pub(super) struct NoShapes;

impl CubeType for NoShapes {
    type ExpandType = ();
}

impl LaunchArg for NoShapes {
    type RuntimeArg<R: Runtime> = ArrayArg<R>;
    type CompilationArg = ();

    fn register<R: Runtime>(arg: ArrayArg<R>, launcher: &mut KernelLauncher<R>) {
        let word = launcher.with_scope(|scope| u32::as_type(scope));
        launcher.register_array(arg, word);
    }

    fn expand(_: &(), _: &mut KernelBuilder) {}
}

/// The barriers of the stages.
#[derive(CubeType)]
pub(super) struct Barriers {
    pub full: Sequence<Shared<Barrier>>,
    pub empty: Sequence<Shared<Barrier>>,
}

/// Barriers that are ready for every unit.
#[cube]
pub(super) fn barriers(#[comptime] tiling: Tiling) -> Barriers {
    let mut full = Sequence::<Shared<Barrier>>::new();
    let mut empty = Sequence::<Shared<Barrier>>::new();
    #[unroll]
    for _ in 0..tiling.stages {
        full.push(Barrier::shared_uninit());
        empty.push(Barrier::shared_uninit());
    }
    if UNIT_POS == 0u32 {
        #[unroll]
        for s in 0..tiling.stages {
            full.index(s).init_manual(1u32);
            empty.index(s).init_manual(comptime!(tiling.planes() as u32));
        }
        sync_async_proxy_shared();
    }
    sync_cube();
    Barriers { full, empty }
}

/// Copies the blocks of step `step` into stage `slot`: tiles from `first_tile` on, of codes of `container` bits, and rows from `first_row`
/// on, whose blocks are `pieces` pieces of 64 bytes in the map.
#[cube]
pub(super) fn fill(
    x: &TensorMap<u32, Tiled>,
    words: &TensorMap<u32, Tiled>,
    x_ring: &mut SharedMemory<Line>,
    w_ring: &mut SharedMemory<Line>,
    ring: &Barriers,
    step: usize,
    first_tile: usize,
    first_row: usize,
    #[comptime] slot: usize,
    #[comptime] tiling: Tiling,
    #[comptime] container: usize,
    #[comptime] pieces: usize,
) {
    let w_stage = comptime!(tiling.cube_tiles() * tiling.blocks * tile_lines(container));
    let x_stage = comptime!(tiling.blocks * tiling.cube_rows() * 4 * pieces);
    let block = (step * tiling.blocks) as i32;
    let piece = comptime!(pieces as i32) * block;
    ring.full
        .index(slot)
        .arrive_and_expect_tx(1u32, comptime!(((w_stage + x_stage) * 16) as u32));
    ring.full.index(slot).tma_load_3d(
        words,
        &mut w_ring.slice_mut(comptime!(slot * w_stage), comptime!((slot + 1) * w_stage)),
        first_tile as i32,
        block,
        0i32,
    );
    ring.full.index(slot).tma_load_3d(
        x,
        &mut x_ring.slice_mut(comptime!(slot * x_stage), comptime!((slot + 1) * x_stage)),
        piece,
        first_row as i32,
        0i32,
    );
}

/// The same registers as another type of their size. A copy to a vector of small elements would be taken apart.
#[cube]
#[allow(unused_variables)]
pub(super) fn retyped<A: CubePrimitive, B: CubePrimitive>(registers: &Array<A>) -> Array<B> {
    intrinsic!(|scope| {
        let mut variable = *registers.expand;
        variable.ty = B::as_type(scope);
        ManagedVariable::Plain(variable).into()
    })
}
