//! A ring of stages in shared memory: bulk copies of weights and activations start some steps ahead of the planes.
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

/// Where stages come from. Only what the device runs reads the fields.
#[derive(CubeType, CubeLaunch)]
#[allow(dead_code)]
pub(super) enum Source {
    /// Activations and weights as boxes: one copy of each a stage, but the host makes two maps a launch.
    Maps(TensorMap<u32, Tiled>, TensorMap<u32, Tiled>),
    /// Activations and weights as runs of lines: a copy of each row and tile, for few of them.
    Runs(Array<Line>, Array<Line>),
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
    /// `None` for a kernel without tensor maps.
    type RuntimeArg<R: Runtime> = Option<ArrayArg<R>>;
    type CompilationArg = ();

    fn register<R: Runtime>(arg: Option<ArrayArg<R>>, launcher: &mut KernelLauncher<R>) {
        if let Some(arg) = arg {
            let word = launcher.with_scope(|scope| u32::as_type(scope));
            launcher.register_array(arg, word);
        }
    }

    fn expand(_: &(), _: &mut KernelBuilder) {}
}

/// How the activations of a stage lie in memory, in lines.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Rows {
    /// Pieces of 64 bytes of a block.
    pub pieces: usize,
    /// A stage is copied as runs.
    pub runs: bool,
}

impl Rows {
    /// From a piece of a row to the next piece.
    pub fn piece(&self, tiling: &Tiling) -> usize {
        if self.by_row() { 4 } else { 4 * tiling.cube_rows() }
    }

    /// From a row to the next.
    pub fn row(&self, tiling: &Tiling) -> usize {
        // 64 bytes more than the row, so that two rows are read at once.
        if self.by_row() {
            4 * self.pieces * tiling.blocks + 4
        } else {
            4
        }
    }

    /// Lines of a stage.
    pub fn stage(&self, tiling: &Tiling) -> usize {
        if self.by_row() {
            tiling.cube_rows() * self.row(tiling)
        } else {
            4 * self.pieces * tiling.blocks * tiling.cube_rows()
        }
    }

    /// Planes that fill a stage: one starts the copies of boxes; each starts some of the runs, since a copy costs a plane over 100 cycles.
    pub fn fillers(&self, tiling: &Tiling) -> usize {
        if self.runs { tiling.planes() } else { 1 }
    }

    /// Whether the blocks of a row are neighbours, as they are in device memory: of int8 codes the rows of a block are.
    fn by_row(&self) -> bool {
        self.runs && self.pieces == 2
    }
}

/// The barriers of the stages.
#[derive(CubeType)]
pub(super) struct Barriers {
    pub full: Sequence<Shared<Barrier>>,
    pub empty: Sequence<Shared<Barrier>>,
}

/// Barriers that are ready for every unit.
#[cube]
pub(super) fn barriers(#[comptime] tiling: Tiling, #[comptime] rows: Rows) -> Barriers {
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
            full.index(s).init_manual(comptime!(rows.fillers(&tiling) as u32));
            empty.index(s).init_manual(comptime!(tiling.planes() as u32));
        }
        sync_async_proxy_shared();
    }
    sync_cube();
    Barriers { full, empty }
}

/// Copies the blocks of step `step` into stage `slot`: tiles from `first_tile` on, of codes of `container` bits, and rows from `first_row`
/// on. `count` is the number of rows, `blocks` that of blocks, `tiles` that of tiles.
#[cube]
pub(super) fn fill(
    source: &Source,
    x_ring: &mut SharedMemory<Line>,
    w_ring: &mut SharedMemory<Line>,
    ring: &Barriers,
    plane: usize,
    step: usize,
    first_tile: usize,
    first_row: usize,
    tiles: usize,
    count: usize,
    blocks: usize,
    #[comptime] slot: usize,
    #[comptime] tiling: Tiling,
    #[comptime] container: usize,
    #[comptime] rows: Rows,
) {
    let lines = comptime!(tile_lines(container));
    let w_stage = comptime!(tiling.cube_tiles() * tiling.blocks * lines);
    let x_stage = comptime!(rows.stage(&tiling));
    let pieces = comptime!(rows.pieces);
    let full = ring.full.index(slot);
    match source {
        Source::Maps(x, words) => {
            let block = (step * tiling.blocks) as i32;
            full.arrive_and_expect_tx(1u32, comptime!(((w_stage + x_stage) * 16) as u32));
            full.tma_load_3d(
                words,
                &mut w_ring.slice_mut(comptime!(slot * w_stage), comptime!((slot + 1) * w_stage)),
                first_tile as i32,
                block,
                0i32,
            );
            full.tma_load_3d(
                x,
                &mut x_ring.slice_mut(comptime!(slot * x_stage), comptime!((slot + 1) * x_stage)),
                comptime!(pieces as i32) * block,
                first_row as i32,
                0i32,
            );
        }
        Source::Runs(x, words) => {
            let block = step * tiling.blocks;
            let here = min(tiling.blocks.runtime(), blocks - block);
            // The first planes copy the weights, each its tiles; the others the rows, where there are others.
            let weights = comptime!(tiling.planes_n);
            let others = comptime!(tiling.planes() - weights);
            if plane < weights {
                #[unroll]
                for i in 0..comptime!(tiling.tiles) {
                    let at = plane * tiling.tiles + i;
                    // A tile that does not exist is never stored: any other will do.
                    let from = (min(first_tile + at, tiles - 1) * blocks + block) * lines;
                    let to = comptime!(slot * w_stage) + at * comptime!(tiling.blocks * lines);
                    full.memcpy_async(
                        &words.slice(from, from + here * lines),
                        &mut w_ring.slice_mut(to, to + comptime!(tiling.blocks * lines)),
                    );
                }
            }
            if comptime!(others == 0).runtime() || plane >= weights {
                let step = comptime!(if others == 0 { weights } else { others });
                let first = if comptime!(others == 0) { plane } else { plane - weights };
                if comptime!(pieces == 2) {
                    #[unroll]
                    for i in 0..comptime!(tiling.cube_rows().div_ceil(step)) {
                        let r = comptime!(i * step) + first;
                        let to = comptime!(slot * x_stage) + r * comptime!(rows.row(&tiling));
                        if r < comptime!(tiling.cube_rows()) && first_row + r < count {
                            let from = ((first_row + r) * blocks + block) * 8;
                            full.memcpy_async(
                                &x.slice(from, from + here * 8),
                                &mut x_ring.slice_mut(to, to + comptime!(tiling.blocks * 8)),
                            );
                        }
                    }
                } else {
                    let length = min(comptime!(tiling.cube_rows()).runtime(), count - first_row) * 4;
                    #[unroll]
                    for i in 0..comptime!(tiling.blocks.div_ceil(step)) {
                        let b = comptime!(i * step) + first;
                        let to = comptime!(slot * x_stage) + b * comptime!(tiling.cube_rows() * 4);
                        if b < here {
                            let from = ((block + b) * count + first_row) * 4;
                            full.memcpy_async(
                                &x.slice(from, from + length),
                                &mut x_ring.slice_mut(to, to + comptime!(tiling.cube_rows() * 4)),
                            );
                        }
                    }
                }
            }
            full.arrive();
        }
    }
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
