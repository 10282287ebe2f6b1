//! Which kernel serves a weight, by rules: pure functions of the problem and of what the hardware has.

use super::fragments::{BLOCK, Operand, TILE};
use super::layout::Arrangement;
use cubecl::ir::features::{MmaConfig, Tma};
use cubecl::ir::{DeviceProperties, ElemType, FloatKind, IntKind};

/// What a device has, as far as kernels ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hardware {
    /// `m16n8k32` of int8 into i32.
    pub int8: bool,
    /// `m16n8k16` of f16 into f32.
    pub f16: bool,
    /// `m16n8k16` of bf16 into f32.
    pub bf16: bool,
    /// Bulk copies into shared memory that a barrier counts.
    pub bulk: bool,
    /// `wgmma`, which Hopper alone has.
    pub warpgroups: bool,
    /// Bytes of shared memory that a cube may have.
    pub shared: usize,
    /// Multiprocessors.
    pub processors: usize,
}

impl Hardware {
    pub fn of(properties: &DeviceProperties) -> Self {
        let mma = |ab: ElemType, cd: ElemType, k: u32| {
            let (a_type, cd_type) = (ab.into(), cd.into());
            properties.features.matmul.mma.contains(&MmaConfig {
                a_type,
                b_type: a_type,
                cd_type,
                m: 16,
                n: 8,
                k,
            })
        };
        let float = ElemType::Float(FloatKind::F32);
        let hardware = &properties.hardware;
        let plane = hardware.plane_size_min == 32 && hardware.plane_size_max == 32;
        Self {
            int8: plane && mma(ElemType::Int(IntKind::I8), ElemType::Int(IntKind::I32), 32),
            f16: plane && mma(ElemType::Float(FloatKind::F16), float, 16),
            bf16: plane && mma(ElemType::Float(FloatKind::BF16), float, 16),
            bulk: properties.features.tma.contains(Tma::Base),
            // Later ones have the wider copies.
            warpgroups: properties.features.tma.contains(Tma::Base)
                && !properties.features.tma.contains(Tma::Im2colWide),
            shared: hardware.max_shared_memory_size,
            processors: hardware.num_streaming_multiprocessors.unwrap_or(1) as usize,
        }
    }
}

/// What a weight asks of its kernels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Problem {
    pub n: usize,
    pub k: usize,
    /// Elements along K that share a scale.
    pub group: usize,
    /// int8 activations.
    pub int8: bool,
    /// Float activations.
    pub float: bool,
    /// The zero point of every block is the middle code.
    pub middle: bool,
}

impl Problem {
    fn is_grouped(&self) -> bool {
        self.group < self.k
    }

    /// Whether sums join in one order, that of the groups: of integers, whose outputs are exact. Such sums are not split along K.
    fn is_ordered(&self) -> bool {
        self.int8 && self.is_grouped()
    }

    /// Bytes of an activation in shared memory.
    fn activation_bytes(&self) -> usize {
        if self.int8 { 1 } else { 2 }
    }
}

/// How the codes of a weight are laid out.
pub(super) fn arrangement(hardware: &Hardware, problem: &Problem) -> Arrangement {
    let Problem { n, k, group, .. } = *problem;
    let blocks = n > 0 && k > 0 && k % BLOCK == 0 && (group >= k || group % BLOCK == 0 || group == BLOCK / 2);
    if !(blocks && hardware.bulk) {
        return Arrangement::Streams;
    }
    if problem.int8 && hardware.int8 && problem.middle {
        return Arrangement::Fragments(Operand::Bytes);
    }
    if problem.float && hardware.f16 && hardware.bf16 {
        return Arrangement::Fragments(Operand::Halves);
    }
    Arrangement::Streams
}

/// How a cube covers a product: planes over channels, rows and K, and a ring of stages in shared memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Tiling {
    /// Tiles of 16 channels of a plane.
    pub tiles: usize,
    /// Tiles of 8 rows of a plane.
    pub rows: usize,
    /// Planes side by side along the channels.
    pub planes_n: usize,
    /// Planes side by side along the rows.
    pub planes_m: usize,
    /// Planes that share K.
    pub planes_k: usize,
    /// Blocks of 64 k in a stage.
    pub blocks: usize,
    /// Stages of the ring; at first the fewest, for which a stage may get fewer blocks.
    pub stages: usize,
    /// Steps from the last reading of a stage to its next filling: with 2, no plane waits for another.
    pub slack: usize,
    /// Slices of K that cubes of their own multiply; sums of slices join afterwards.
    pub slices: usize,
    pub way: Way,
}

/// How operands reach the matrix instructions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Way {
    /// Through a ring of stages in shared memory, and each plane's registers.
    Ring,
    /// From device memory to registers, a step ahead; there is no ring.
    Direct,
    /// Through the ring; four planes multiply rows in shared memory (`wgmma`).
    Warpgroups,
}

impl Tiling {
    /// Tiles of 16 channels of a cube.
    pub fn cube_tiles(&self) -> usize {
        self.tiles * self.planes_n
    }

    /// Channels of a cube.
    pub fn cube_channels(&self) -> usize {
        self.cube_tiles() * TILE
    }

    /// Rows of a cube.
    pub fn cube_rows(&self) -> usize {
        self.rows * self.planes_m * 8
    }

    /// Steps that copies run ahead.
    pub fn ahead(&self) -> usize {
        self.stages - self.slack
    }

    /// Planes of a cube.
    pub fn planes(&self) -> usize {
        self.planes_n * self.planes_m * self.planes_k
    }

    /// Bytes of a stage: `code` bits a code, `activation` bytes an activation.
    pub fn stage_bytes(&self, code: usize, activation: usize) -> usize {
        // 64 bytes more for each row: see `ring::Shape::row`.
        self.blocks * BLOCK * (self.cube_channels() * code / 8 + self.cube_rows() * activation)
            + self.cube_rows().min(16) * 64
    }

    /// Bytes that the planes that share K exchange.
    fn exchanged(&self) -> usize {
        if self.planes_k > 1 {
            4 * self.planes_k * self.cube_channels() * self.cube_rows()
        } else {
            0
        }
    }

    /// As many stages as fit in `shared` bytes, and as many as there are, at most 8 and no fewer than 3; rather a divisor of the steps. A
    /// stage has fewer blocks where those of `self` would not fit.
    fn filled(mut self, shared: usize, code: usize, activation: usize, blocks: usize) -> Self {
        let fit =
            |tiling: &Self| shared.saturating_sub(2048 + tiling.exchanged()) / tiling.stage_bytes(code, activation);
        while fit(&self) < self.stages && self.blocks > self.planes_k {
            self.blocks /= 2;
        }
        let fit = fit(&self);
        let steps = blocks.div_ceil(self.blocks);
        let most = fit.min(8).min(steps + 2).max(3);
        self.stages = (4..=most)
            .rev()
            .find(|stages| steps.is_multiple_of(*stages))
            .unwrap_or(most);
        self
    }
}

/// Two or four groups of four planes; `None` where the device has no `wgmma` or the ring serves better. The time of a
/// candidate is a guess in µs from an H200.
fn warpgroups(hardware: &Hardware, problem: &Problem, rows: usize) -> Option<Tiling> {
    let tiling = |tiles, rows, planes_m, blocks| Tiling {
        tiles,
        rows,
        planes_n: 8,
        planes_m,
        planes_k: 1,
        blocks,
        stages: 4,
        slack: 2,
        slices: 1,
        way: Way::Warpgroups,
    };
    // Grouped integers stay with the ring: the sum of each group meets too much that is in registers.
    let few = if problem.int8 { 64 } else { 32 };
    if !hardware.warpgroups || rows <= few || problem.is_ordered() {
        return None;
    }
    let large = problem.n * problem.k >= 1 << 25;
    // With the time of 2^32 products in ms, which a small cube does not reach: it reads more for each.
    let candidates = if problem.int8 {
        vec![(tiling(1, 16, 2, 2), 0.9)]
    } else if rows <= 64 {
        // The ring serves them as well, but where the weight is large.
        if !large {
            return None;
        }
        vec![(
            Tiling {
                stages: 3,
                slack: 1,
                ..tiling(1, 8, 1, 4)
            },
            2.0,
        )]
    } else {
        vec![(tiling(2, 16, 1, 2), 1.5), (tiling(1, 16, 1, 2), 2.0)]
    };
    let cubes = |tiling: &Tiling| {
        problem.n.div_ceil(tiling.cube_channels()) * rows.div_ceil(tiling.cube_rows()) * tiling.slices
    };
    let can_be_cut = |tiling: &Tiling| {
        // A launch more, which only a large weight is worth. Integers have no sums of slices.
        let blocks = problem.k / BLOCK;
        let whole = blocks.is_multiple_of(tiling.slices * tiling.blocks) && blocks >= 16 * tiling.slices;
        tiling.slices == 1 || whole && large && !problem.int8
    };
    let time = |(tiling, time): &(Tiling, f64)| {
        let products = (tiling.cube_channels() * tiling.cube_rows() * problem.k / tiling.slices) as f64;
        let waves = cubes(tiling).div_ceil(hardware.processors) as f64;
        let joined = ((tiling.slices + 1) * rows * problem.n) as f64;
        let join = if tiling.slices > 1 { 3.0 + joined * 1.3e-6 } else { 0.0 };
        waves * (products / (1u64 << 32) as f64 * 1000.0 * time + 5.0) + join
    };
    candidates
        .into_iter()
        .flat_map(|(tiling, time)| [1, 2, 4].map(|slices| (Tiling { slices, ..tiling }, time)))
        .filter(|(tiling, _)| can_be_cut(tiling) && 4 * cubes(tiling) >= 3 * hardware.processors)
        .min_by(|a, b| time(a).total_cmp(&time(b)))
        .map(|(tiling, _)| tiling)
}

/// The tiling of `rows` rows of activations with codes of `code` bits.
pub(super) fn tiling(hardware: &Hardware, problem: &Problem, rows: usize, code: usize) -> Tiling {
    if problem.float && rows <= 8 {
        return direct(hardware, problem);
    }
    if let Some(tiling) = warpgroups(hardware, problem, rows) {
        let blocks = problem.k / BLOCK / tiling.slices;
        return tiling.filled(hardware.shared, code, problem.activation_bytes(), blocks);
    }
    let tiling = match rows {
        // Wide enough for a wave of cubes that read shared memory less often.
        33..=64 if problem.float && 4 * problem.n.div_ceil(8 * TILE) >= 3 * hardware.processors => Tiling {
            tiles: 2,
            rows: 8,
            planes_n: 4,
            planes_m: 1,
            planes_k: 2,
            blocks: 2,
            stages: 4,
            slack: 1,
            slices: 1,
            way: Way::Ring,
        },
        // Two cubes over the rows, each of twice the channels: the rows come from the L2 half as often.
        33..=64 if problem.float && problem.n.div_ceil(TILE) <= 2 * hardware.processors => Tiling {
            tiles: 2,
            rows: 4,
            planes_n: 2,
            planes_m: 1,
            planes_k: 4,
            blocks: 8,
            stages: 3,
            slack: 2,
            slices: 1,
            way: Way::Ring,
        },
        0..=64 => few(hardware, problem, rows),
        _ => many(hardware, problem, rows),
    };
    // Few planes: two cubes share a multiprocessor, so that one computes while the other waits.
    let shared = if tiling.planes() <= 4 {
        hardware.shared / 2
    } else {
        hardware.shared
    };
    tiling.filled(shared, code, problem.activation_bytes(), problem.k / BLOCK)
}

/// A wave of cubes over the channels for up to 8 rows, with as many planes as registers allow: their number hides the way of the codes from
/// memory. Steps of two blocks, so that the loop stays small: kernels of a few microseconds run most instructions for the first time, and
/// fetching them took longer than what an unrolled loop saves.
fn direct(hardware: &Hardware, problem: &Problem) -> Tiling {
    let planes_n = problem.n.div_ceil(TILE).div_ceil(hardware.processors).clamp(1, 7);
    let most = (problem.k / (2 * BLOCK)).min(16).min(32 / planes_n).max(1);
    let planes_k = 1 << most.ilog2();
    Tiling {
        tiles: 1,
        rows: 1,
        planes_n,
        planes_m: 1,
        planes_k,
        blocks: 2 * planes_k,
        stages: 1,
        slack: 1,
        slices: 1,
        way: Way::Direct,
    }
}

/// One wave of cubes over the channels, each of every row; planes share K where that leaves few.
fn few(hardware: &Hardware, problem: &Problem, rows: usize) -> Tiling {
    let rows = match rows {
        0..=8 => 1,
        9..=16 => 2,
        17..=32 => 4,
        _ => 8,
    };
    let planes_n = problem.n.div_ceil(TILE).div_ceil(hardware.processors).clamp(1, 8);
    // Rows take registers and space for exchange.
    let planes = if rows > 4 { 14 } else { 16 };
    let planes_k = match planes / planes_n {
        _ if problem.is_ordered() => 1,
        0..=1 => 1,
        2..=3 => 2,
        4..=7 => 4,
        _ if rows > 2 => 4,
        _ => 8,
    };
    Tiling {
        tiles: 1,
        rows,
        planes_n,
        planes_m: 1,
        planes_k,
        // The more a plane does in a step, the less the step costs.
        blocks: if planes_k <= 2 && rows <= 2 {
            4 * planes_k
        } else {
            2 * planes_k.max(2)
        },
        stages: 4,
        slack: 2,
        slices: 1,
        way: Way::Ring,
    }
}

/// The tiling whose waves of cubes take the shortest time, by the work of a cube.
fn many(hardware: &Hardware, problem: &Problem, rows: usize) -> Tiling {
    let tiling = |tiles, planes_m, planes_k| Tiling {
        tiles,
        rows: 8,
        planes_n: 4,
        planes_m,
        planes_k,
        blocks: 2,
        stages: 4,
        slack: 2,
        slices: 1,
        way: Way::Ring,
    };
    // With the time of a product of their size in percent of the first: a smaller one reads shared memory more often. Sums of groups take
    // as many registers as sums.
    let large = if problem.is_grouped() {
        (tiling(2, 2, 1), 110)
    } else {
        (tiling(4, 2, 1), 100)
    };
    let mut small = tiling(2, 1, if problem.is_ordered() { 1 } else { 2 });
    if problem.float {
        // Fewer, longer steps.
        (small.blocks, small.stages) = (4, 3);
    }
    let small = (small, 130);
    let time = |(tiling, percent): &(Tiling, usize)| {
        let cubes = problem.n.div_ceil(tiling.cube_channels()) * rows.div_ceil(tiling.cube_rows());
        // Half as many planes take twice as long, two cubes at a time.
        let at_once = 8 / tiling.planes();
        let waves = cubes.div_ceil(at_once * hardware.processors) * at_once;
        waves * tiling.cube_channels() * tiling.cube_rows() * percent
    };
    if time(&small) < time(&large) { small.0 } else { large.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H200: Hardware = Hardware {
        int8: true,
        f16: true,
        bf16: true,
        bulk: true,
        warpgroups: true,
        shared: 232_448,
        processors: 132,
    };

    fn problem(n: usize, k: usize, group: usize) -> Problem {
        Problem {
            n,
            k,
            group,
            int8: true,
            float: false,
            middle: true,
        }
    }

    #[test]
    fn int8_activations_take_bytes_and_float_ones_halves() {
        let int8 = problem(64, 256, 256);
        assert_eq!(arrangement(&H200, &int8), Arrangement::Fragments(Operand::Bytes));
        let float = Problem {
            int8: false,
            float: true,
            ..int8
        };
        assert_eq!(arrangement(&H200, &float), Arrangement::Fragments(Operand::Halves));
    }

    #[test]
    fn hardware_that_lacks_an_instruction_takes_the_portable_kernels() {
        let none = Hardware {
            int8: false,
            f16: false,
            bf16: false,
            bulk: false,
            warpgroups: false,
            shared: 32_768,
            processors: 1,
        };
        let float = Problem {
            int8: false,
            float: true,
            ..problem(64, 256, 128)
        };
        for weight in [problem(64, 256, 256), float] {
            assert_eq!(arrangement(&none, &weight), Arrangement::Streams);
            assert_eq!(
                arrangement(&Hardware { bulk: false, ..H200 }, &weight),
                Arrangement::Streams
            );
        }
        assert_eq!(
            arrangement(&Hardware { int8: false, ..H200 }, &problem(64, 256, 256)),
            Arrangement::Streams
        );
        assert_eq!(
            arrangement(&Hardware { bf16: false, ..H200 }, &float),
            Arrangement::Streams
        );
    }

    #[test]
    fn k_and_groups_that_blocks_do_not_divide_take_the_portable_kernels() {
        for (n, k, group) in [(64, 100, 100), (64, 256, 16), (64, 256, 96), (0, 256, 256), (64, 0, 1)] {
            assert_eq!(
                arrangement(&H200, &problem(n, k, group)),
                Arrangement::Streams,
                "{n} {k} {group}"
            );
        }
        assert_eq!(
            arrangement(
                &H200,
                &Problem {
                    middle: false,
                    ..problem(64, 256, 64)
                }
            ),
            Arrangement::Streams
        );
    }

    #[test]
    fn many_rows_of_a_large_weight_take_warpgroups_where_the_device_has_them() {
        let int8 = problem(4096, 4096, 4096);
        let float = Problem {
            int8: false,
            float: true,
            ..problem(14_336, 4096, 128)
        };
        let long = Problem {
            n: 4096,
            k: 14_336,
            ..float
        };
        let small = Problem { n: 4096, ..float };
        let of = |hardware: &Hardware, problem: &Problem, rows| {
            let tiling = tiling(hardware, problem, rows, if problem.int8 { 8 } else { 4 });
            (tiling.way, tiling.slices)
        };
        assert_eq!(of(&H200, &int8, 4096), (Way::Warpgroups, 1));
        assert_eq!(of(&H200, &int8, 256), (Way::Ring, 1));
        assert_eq!(of(&H200, &float, 16), (Way::Ring, 1));
        assert_eq!(of(&H200, &float, 64), (Way::Warpgroups, 1));
        assert_eq!(of(&H200, &float, 256), (Way::Warpgroups, 1));
        assert_eq!(of(&H200, &long, 256), (Way::Warpgroups, 4));
        assert_eq!(of(&H200, &small, 64), (Way::Ring, 1));
        assert_eq!(of(&H200, &Problem { group: 128, ..int8 }, 4096).0, Way::Ring);
        let without = Hardware {
            warpgroups: false,
            ..H200
        };
        for problem in [int8, float, long] {
            assert_eq!(of(&without, &problem, 4096), (Way::Ring, 1));
        }
    }

    #[test]
    fn every_tiling_fits_the_hardware_and_keeps_a_ring() {
        for (n, k) in [
            (16, 64),
            (4096, 4096),
            (14_336, 4096),
            (4096, 14_336),
            (70, 256),
            (100_000, 64),
        ] {
            for group in [32, 64, 128, k] {
                for rows in [1, 8, 9, 16, 17, 33, 64, 65, 256, 512, 513, 4096, 100_000] {
                    for (code, float) in [(8, false), (4, false), (4, true), (8, true)] {
                        let problem = Problem {
                            int8: !float,
                            float,
                            ..problem(n, k, group.min(k))
                        };
                        let tiling = tiling(&H200, &problem, rows, code);
                        let bytes =
                            tiling.stages * tiling.stage_bytes(code, problem.activation_bytes()) + tiling.exchanged();
                        let about = format!("{n} {k} {group} {rows} {code} {tiling:?}");
                        assert!(bytes + 2048 <= H200.shared, "{about}: {bytes} bytes");
                        assert!(
                            tiling.way == Way::Direct || tiling.stages >= 3 && tiling.planes() <= 16,
                            "{about}"
                        );
                        assert!(tiling.planes() <= 32, "{about}");
                        assert!(
                            tiling.way != Way::Direct || tiling.planes_k == 1 || 2 * tiling.planes_k <= k / BLOCK,
                            "{about}"
                        );
                        assert_eq!(tiling.way == Way::Direct, float && rows <= 8, "{about}");
                        assert!(tiling.blocks.is_multiple_of(tiling.planes_k), "{about}");
                        assert!(tiling.planes_k == 1 || !problem.is_ordered(), "{about}");
                        assert!(
                            tiling.cube_tiles() <= 256 && tiling.cube_rows() <= 256,
                            "{about}: a box"
                        );
                        if tiling.way == Way::Warpgroups {
                            assert!(tiling.planes_n.is_multiple_of(4) && tiling.planes_k == 1, "{about}");
                            // Outputs in f32 take the place of the ring.
                            let outputs = 4 * tiling.cube_rows() * (tiling.cube_channels() + 8);
                            assert!(outputs + 2048 <= H200.shared, "{about}: {outputs} bytes");
                            let steps = (k / BLOCK).div_ceil(tiling.blocks);
                            let rest = tiling.slices > 1 && (k / BLOCK) % tiling.blocks != 0;
                            assert!(!rest && steps.is_multiple_of(tiling.slices), "{about}");
                        } else {
                            assert_eq!(tiling.slices, 1, "{about}");
                        }
                    }
                }
            }
        }
    }
}
