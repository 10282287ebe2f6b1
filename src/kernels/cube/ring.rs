//! A ring of stages in shared memory: bulk copies of weights and activations start some steps ahead of the planes.
//!
//! A stage holds some blocks of 64 k: the tiles of the cube's channels, and its rows. `full` counts the bytes of the copies, `empty`
//! the planes that are done with a stage.

use super::fragments::{BLOCK, TILE, container};
use super::grid::Grid;
use super::select::{Tiling, Way};
use super::weight::CubeWeight;
use cubecl::ir::ManagedVariable;
use cubecl::prelude::barrier::Barrier;
use cubecl::prelude::*;

/// 16 bytes.
pub(super) type Line = Vector<u32, Const<4>>;

/// Sums of two neighbouring rows, as a lane has them.
pub(super) type Pair<T> = Vector<T, Const<2>>;

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

/// The codes of a weight as boxes, one for a stage of a cube.
pub(super) fn weight_boxes<R: Runtime>(weight: &CubeWeight<R>, tiling: Tiling) -> TensorMapArg<R, Tiled> {
    let layout = weight.layout;
    let (tiles, blocks) = (layout.n.div_ceil(TILE), layout.k / BLOCK);
    let inner = 4 * tile_lines(container(layout.bits));
    weight.words.map(
        [tiles, blocks, inner],
        [blocks * inner, inner, 1],
        [tiling.cube_tiles(), tiling.blocks, inner],
        TensorMapSwizzle::None,
    )
}

/// The cubes of a product of `rows` rows, where [`place_of`] looks for them.
pub(super) fn cubes<R: Runtime>(weight: &CubeWeight<R>, tiling: Tiling, rows: usize) -> CubeCount {
    let columns = weight.layout.n.div_ceil(tiling.cube_channels()) * tiling.slices;
    Grid::new(columns, rows.div_ceil(tiling.cube_rows())).count()
}

/// How a product is cut and its stages are copied: what the ring of a kernel is compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Shape {
    pub tiling: Tiling,
    /// Bits that a code takes.
    pub container: usize,
    /// Pieces of 64 bytes that a row has in a block.
    pub pieces: usize,
    /// Stages are copied as runs.
    pub runs: bool,
    /// The pieces that a row has in a block are one box, swizzled, as [`wgmma`](super::wgmma) reads it.
    pub swizzled: bool,
    /// Stages cover K without a rest.
    pub whole: bool,
    /// Rounds of the ring cover the stages without a rest.
    pub even: bool,
}

impl Shape {
    /// For `blocks` blocks along K.
    pub fn new(tiling: Tiling, container: usize, pieces: usize, runs: bool, blocks: usize) -> Self {
        Self {
            tiling,
            container,
            pieces,
            runs,
            swizzled: tiling.way == Way::Warpgroups,
            whole: blocks.is_multiple_of(tiling.blocks),
            even: (blocks.div_ceil(tiling.blocks) / tiling.slices).is_multiple_of(tiling.stages),
        }
    }

    /// Lines of a tile in a block.
    pub fn lines(&self) -> usize {
        tile_lines(self.container)
    }

    /// Lines of the weights of a stage.
    pub fn w_stage(&self) -> usize {
        self.tiling.cube_tiles() * self.tiling.blocks * self.lines()
    }

    /// Lines of the activations of a stage.
    pub fn x_stage(&self) -> usize {
        if self.by_row() {
            self.tiling.cube_rows() * self.row()
        } else {
            4 * self.pieces * self.tiling.blocks * self.tiling.cube_rows()
        }
    }

    /// Boxes of a row in a block.
    fn boxes(&self) -> usize {
        if self.swizzled { 1 } else { self.pieces }
    }

    /// Bytes at whose multiples stages of activations begin.
    fn alignment(&self) -> usize {
        if self.swizzled { 1024 } else { 128 }
    }

    /// Lines from a piece of a row to the next piece.
    pub fn piece(&self) -> usize {
        if self.by_row() { 4 } else { 4 * self.tiling.cube_rows() }
    }

    /// Lines from a row to the next.
    pub fn row(&self) -> usize {
        // 64 bytes more than the row, so that two rows are read at once.
        if self.by_row() {
            4 * self.pieces * self.tiling.blocks + 4
        } else {
            4
        }
    }

    /// Blocks of a stage that a plane multiplies.
    pub fn share(&self) -> usize {
        self.tiling.blocks / self.tiling.planes_k
    }

    /// Planes that fill a stage: one starts the copies of boxes; each starts some of the runs, since a copy costs a plane over 100 cycles.
    fn fillers(&self) -> usize {
        if self.runs { self.tiling.planes() } else { 1 }
    }

    /// Whether the blocks of a row are neighbours, as they are in device memory: of int8 codes the rows of a block are.
    fn by_row(&self) -> bool {
        self.runs && self.pieces == 2
    }
}

/// Where a unit is in a product.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Place {
    /// Rows, blocks and tiles of the product.
    pub rows: usize,
    pub blocks: usize,
    pub tiles: usize,
    /// The cube's.
    pub first_tile: usize,
    pub first_row: usize,
    /// The first step of the cube's slice of K, and how many it has.
    pub first_step: usize,
    pub steps: usize,
    /// Which slice that is.
    pub slice: usize,
    pub lane: usize,
    plane: usize,
    /// Which of the planes that share K this is.
    pub plane_k: usize,
    /// The plane's, from those of the cube on.
    pub own_tile: usize,
    pub own_row: usize,
    /// The lane's first lines of a stage.
    pub own_w: usize,
    pub own_x: usize,
}

/// The place of this unit in a product of `rows` rows, `n` channels and `blocks` blocks.
#[cube]
pub(super) fn place_of(rows: u32, n: u32, blocks: u32, #[comptime] shape: Shape) -> Place {
    let tiling = comptime!(shape.tiling);
    let lane = UNIT_POS_X as usize;
    let plane = UNIT_POS_Y as usize;
    let blocks = blocks as usize;
    let plane_n = plane % comptime!(tiling.planes_n);
    let plane_m = (plane / comptime!(tiling.planes_n)) % comptime!(tiling.planes_m);
    let plane_k = plane / comptime!(tiling.planes_n * tiling.planes_m);
    let own_tile = plane_n * comptime!(tiling.tiles);
    let own_row = plane_m * comptime!(tiling.rows * 8);
    let share = comptime!(shape.share());
    let slices = comptime!(tiling.slices);
    let mut steps = blocks.div_ceil(comptime!(tiling.blocks));
    let mut column = CUBE_POS_X as usize;
    let mut slice = 0usize.runtime();
    if comptime!(slices > 1) {
        steps = steps / slices;
        slice = column % slices;
        column = column / slices;
    }
    Place {
        rows: rows as usize,
        blocks,
        tiles: (n as usize).div_ceil(16),
        first_tile: column * comptime!(tiling.cube_tiles()),
        first_row: (CUBE_POS_Y as usize + CUBE_POS_Z as usize * CUBE_COUNT_Y as usize) * comptime!(tiling.cube_rows()),
        first_step: slice * steps,
        steps,
        slice,
        lane,
        plane,
        plane_k,
        own_tile,
        own_row,
        own_w: (own_tile * comptime!(tiling.blocks) + plane_k * share) * comptime!(shape.lines()) + lane,
        own_x: plane_k * comptime!(shape.pieces * shape.share() * shape.piece())
            + (own_row + lane / 4) * comptime!(shape.row())
            + lane % 4,
    }
}

/// The stages and their barriers.
#[derive(CubeType)]
pub(super) struct Ring {
    /// Lines of weights, `[stage][tile][block][line]`.
    pub w: SharedMemory<Line>,
    /// Lines of activations: [`Shape::piece`] and [`Shape::row`] say how they lie.
    pub x: SharedMemory<Line>,
    full: Sequence<Shared<Barrier>>,
    empty: Sequence<Shared<Barrier>>,
}

/// A ring whose barriers are ready for every unit.
#[cube]
pub(super) fn prepare(#[comptime] shape: Shape) -> Ring {
    let stages = comptime!(shape.tiling.stages);
    let w = SharedMemory::<Line>::new_aligned(comptime!(stages * shape.w_stage()), 128usize);
    let x = SharedMemory::<Line>::new_aligned(comptime!(stages * shape.x_stage()), shape.alignment());
    let mut full = Sequence::<Shared<Barrier>>::new();
    let mut empty = Sequence::<Shared<Barrier>>::new();
    #[unroll]
    for _ in 0..stages {
        full.push(Barrier::shared_uninit());
        empty.push(Barrier::shared_uninit());
    }
    if UNIT_POS == 0u32 {
        #[unroll]
        for s in 0..stages {
            full.index(s).init_manual(comptime!(shape.fillers() as u32));
            empty.index(s).init_manual(comptime!(shape.tiling.planes() as u32));
        }
        sync_async_proxy_shared();
    }
    sync_cube();
    Ring { w, x, full, empty }
}

/// Whether this unit starts copies of step `step`. Planes take turns with boxes: were it always the same, the others would wait for it.
#[cube]
fn fills(place: &Place, step: usize, #[comptime] shape: Shape) -> bool {
    let planes = comptime!(shape.tiling.planes());
    place.lane == 0 && (comptime!(shape.runs).runtime() || place.plane == step % planes)
}

/// Starts the copies of the first steps.
#[cube]
pub(super) fn start(ring: &mut Ring, source: &Source, place: &Place, #[comptime] shape: Shape) {
    #[unroll]
    for s in 0..comptime!(shape.tiling.ahead()) {
        if fills(place, s, shape) && s < place.steps {
            fill(ring, source, place, s, s, shape);
        }
    }
}

/// Waits for stage `s` of round `round`, after the copies of a later step have started.
#[cube]
pub(super) fn enter(
    ring: &mut Ring,
    source: &Source,
    place: &Place,
    round: usize,
    #[comptime] s: usize,
    #[comptime] shape: Shape,
) {
    let (stages, ahead) = comptime!((shape.tiling.stages, shape.tiling.ahead()));
    let next = round * stages + comptime!(s + ahead);
    if fills(place, next, shape) && next < place.steps {
        let slot = comptime!((s + ahead) % stages);
        let turn = round + comptime!((s + ahead) / stages);
        if turn > 0 {
            ring.empty.index(slot).wait_parity((turn as u32 + 1u32) % 2u32);
        }
        fill(ring, source, place, next, slot, shape);
    }
    sync_plane();
    ring.full.index(s).wait_parity(round as u32 % 2u32);
}

/// This plane is done with stage `s`.
#[cube]
pub(super) fn leave(ring: &Ring, place: &Place, #[comptime] s: usize) {
    sync_plane();
    if place.lane == 0 {
        ring.empty.index(s).arrive();
    }
}

/// Copies the blocks of step `step` into stage `slot`.
#[cube]
fn fill(
    ring: &mut Ring,
    source: &Source,
    place: &Place,
    step: usize,
    #[comptime] slot: usize,
    #[comptime] shape: Shape,
) {
    let tiling = comptime!(shape.tiling);
    let lines = comptime!(shape.lines());
    let (w_stage, x_stage) = comptime!((shape.w_stage(), shape.x_stage()));
    let pieces = comptime!(shape.pieces);
    let (first_tile, first_row) = (place.first_tile, place.first_row);
    let full = ring.full.index(slot);
    match source {
        Source::Maps(x, words) => {
            let block = ((place.first_step + step) * tiling.blocks) as i32;
            full.arrive_and_expect_tx(1u32, comptime!(((w_stage + x_stage) * 16) as u32));
            full.tma_load_3d(
                words,
                &mut ring
                    .w
                    .slice_mut(comptime!(slot * w_stage), comptime!((slot + 1) * w_stage)),
                first_tile as i32,
                block,
                0i32,
            );
            full.tma_load_3d(
                x,
                &mut ring
                    .x
                    .slice_mut(comptime!(slot * x_stage), comptime!((slot + 1) * x_stage)),
                comptime!(shape.boxes() as i32) * block,
                first_row as i32,
                0i32,
            );
        }
        Source::Runs(x, words) => {
            let block = step * tiling.blocks;
            let here = min(tiling.blocks.runtime(), place.blocks - block);
            // The first planes copy the weights, each its tiles; the others the rows, where there are others.
            let weights = comptime!(tiling.planes_n);
            let others = comptime!(tiling.planes() - weights);
            if place.plane < weights {
                #[unroll]
                for i in 0..comptime!(tiling.tiles) {
                    let at = place.plane * tiling.tiles + i;
                    // A tile that does not exist is never stored: any other will do.
                    let from = (min(first_tile + at, place.tiles - 1) * place.blocks + block) * lines;
                    let to = comptime!(slot * w_stage) + at * comptime!(tiling.blocks * lines);
                    full.memcpy_async(
                        &words.slice(from, from + here * lines),
                        &mut ring.w.slice_mut(to, to + comptime!(tiling.blocks * lines)),
                    );
                }
            }
            if comptime!(others == 0).runtime() || place.plane >= weights {
                let step = comptime!(if others == 0 { weights } else { others });
                let first = if comptime!(others == 0) {
                    place.plane
                } else {
                    place.plane - weights
                };
                if comptime!(pieces == 2) {
                    #[unroll]
                    for i in 0..comptime!(tiling.cube_rows().div_ceil(step)) {
                        let r = comptime!(i * step) + first;
                        let to = comptime!(slot * x_stage) + r * comptime!(shape.row());
                        if r < comptime!(tiling.cube_rows()) && first_row + r < place.rows {
                            let from = ((first_row + r) * place.blocks + block) * 8;
                            full.memcpy_async(
                                &x.slice(from, from + here * 8),
                                &mut ring.x.slice_mut(to, to + comptime!(tiling.blocks * 8)),
                            );
                        }
                    }
                } else {
                    let length = min(comptime!(tiling.cube_rows()).runtime(), place.rows - first_row) * 4;
                    #[unroll]
                    for i in 0..comptime!(tiling.blocks.div_ceil(step)) {
                        let b = comptime!(i * step) + first;
                        let to = comptime!(slot * x_stage) + b * comptime!(tiling.cube_rows() * 4);
                        if b < here {
                            let from = ((block + b) * place.rows + first_row) * 4;
                            full.memcpy_async(
                                &x.slice(from, from + length),
                                &mut ring.x.slice_mut(to, to + comptime!(tiling.cube_rows() * 4)),
                            );
                        }
                    }
                }
            }
            full.arrive();
        }
    }
}

/// Writes the sums of planes that share K, `[plane_k][row][channel]`, and waits for those of the others.
#[cube]
pub(super) fn exchange<T: Numeric>(
    sums: &Sequence<Array<Pair<T>>>,
    place: &Place,
    #[comptime] tiling: Tiling,
) -> SharedMemory<T> {
    let (channels, rows) = comptime!((tiling.cube_channels(), tiling.cube_rows()));
    let mut shared = SharedMemory::<T>::new(comptime!(tiling.planes_k * channels * rows));
    let (g, t) = (place.lane / 4, place.lane % 4);
    #[unroll]
    for i in 0..comptime!(tiling.tiles) {
        #[unroll]
        for j in 0..comptime!(tiling.rows) {
            let own = sums.index(comptime!(i * tiling.rows + j));
            #[unroll]
            for h in 0..2usize {
                #[unroll]
                for e in 0..2usize {
                    let row = place.plane_k * rows + place.own_row + comptime!(j * 8 + e) + 2 * t;
                    shared[row * channels + (place.own_tile + i) * 16 + comptime!(8 * h) + g] = own[h][e];
                }
            }
        }
    }
    sync_cube();
    shared
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

/// The first `count` elements of `from` take the place of those of `into`.
#[cube]
pub(super) fn replace<T: CubePrimitive>(into: &mut Array<T>, from: &Array<T>, #[comptime] count: usize) {
    #[unroll]
    for i in 0..count {
        into[i] = from[i];
    }
}
