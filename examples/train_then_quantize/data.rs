//! The digits: read from IDX, split by a fixed seed, batched as tensors.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use flate2::read::GzDecoder;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::{
    error::Error,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// Pixels along one edge of an image.
pub const SIDE: usize = 28;
const PIXELS: usize = SIDE * SIDE;
/// The digits 0 to 9.
pub const CLASSES: usize = 10;

/// Mean and standard deviation of all pixels, as fractions of 1: every pixel is normalised by them.
const MEAN: f32 = 0.13;
const DEVIATION: f32 = 0.31;

const TRAIN: usize = 7_500;
const CALIBRATION: usize = 500;
const TEST: usize = 2_000;
const SPLIT_SEED: u64 = 20_210;

/// Grey images with their labels.
pub struct Digits {
    /// Image after image, row by row, 0 background to 255 ink.
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

/// Three sets that share no digit.
pub struct Split {
    /// 7,500 digits to train on.
    pub train: Digits,
    /// 500 digits to calibrate activations with. The model was not trained on them, and they are no test digits.
    pub calibration: Digits,
    /// 2,000 digits that only measure.
    pub test: Digits,
}

/// Normalised images `[batch, SIDE, SIDE]` with labels `[batch]`.
pub struct Batch<B: Backend> {
    pub images: Tensor<B, 3>,
    pub labels: Tensor<B, 1, Int>,
}

impl Digits {
    /// The 10,000 digits beside this example, sorted by class as their source has them.
    pub fn load() -> Result<Self, Box<dyn Error>> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/data");
        let (dimensions, pixels) = read_idx(&folder.join("digits-images.idx3-ubyte.gz"))?;
        let (labels_dimensions, labels) = read_idx(&folder.join("digits-labels.idx1-ubyte.gz"))?;
        if dimensions[1..] != [SIDE, SIDE] || labels_dimensions != dimensions[..1] {
            return Err(format!("images of shape {dimensions:?} do not go with labels {labels_dimensions:?}").into());
        }
        Ok(Self { pixels, labels })
    }

    /// 7,500 / 500 / 2,000 digits, the same ones in every run.
    pub fn split(&self) -> Split {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(&mut StdRng::seed_from_u64(SPLIT_SEED));
        let (train, rest) = order.split_at(TRAIN);
        let (calibration, rest) = rest.split_at(CALIBRATION);
        Split {
            train: self.pick(train),
            calibration: self.pick(calibration),
            test: self.pick(&rest[..TEST]),
        }
    }

    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// The digits in order, at most `size` a batch.
    pub fn batches<'a, B: Backend>(
        &'a self,
        size: usize,
        device: &'a B::Device,
    ) -> impl Iterator<Item = Batch<B>> + 'a {
        let order: Vec<usize> = (0..self.len()).collect();
        let batches: Vec<Vec<usize>> = order.chunks(size).map(<[usize]>::to_vec).collect();
        batches
            .into_iter()
            .map(move |picks| self.batch(&picks, |_| (0, 0), device))
    }

    /// One epoch: every digit once in random order, each moved by up to `max_shift` pixels along both axes.
    /// A last batch that is not full is left out.
    pub fn shuffled_batches<'a, B: Backend>(
        &'a self,
        size: usize,
        max_shift: i32,
        rng: &'a mut StdRng,
        device: &'a B::Device,
    ) -> impl Iterator<Item = Batch<B>> + 'a {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(rng);
        let batches: Vec<Vec<usize>> = order.chunks_exact(size).map(<[usize]>::to_vec).collect();
        batches.into_iter().map(move |picks| {
            let shift = |_| {
                (
                    rng.random_range(-max_shift..=max_shift),
                    rng.random_range(-max_shift..=max_shift),
                )
            };
            self.batch(&picks, shift, device)
        })
    }

    /// The first digits, at most `count`.
    pub fn first(&self, count: usize) -> Self {
        let picks: Vec<usize> = (0..self.len().min(count)).collect();
        self.pick(&picks)
    }

    fn pick(&self, picks: &[usize]) -> Self {
        Self {
            pixels: picks.iter().flat_map(|&index| self.image(index)).copied().collect(),
            labels: picks.iter().map(|&index| self.labels[index]).collect(),
        }
    }

    fn image(&self, index: usize) -> &[u8] {
        &self.pixels[index * PIXELS..(index + 1) * PIXELS]
    }

    fn batch<B: Backend>(
        &self,
        picks: &[usize],
        mut shift: impl FnMut(usize) -> (i32, i32),
        device: &B::Device,
    ) -> Batch<B> {
        let mut images = vec![normalise(0); picks.len() * PIXELS];
        for (target, &index) in images.chunks_exact_mut(PIXELS).zip(picks) {
            write_shifted(self.image(index), shift(index), target);
        }
        let labels: Vec<i64> = picks.iter().map(|&index| i64::from(self.labels[index])).collect();
        let count = picks.len();
        Batch {
            images: Tensor::from_data(TensorData::new(images, [count, SIDE, SIDE]), device),
            labels: Tensor::from_data(TensorData::new(labels, [count]), device),
        }
    }
}

fn normalise(pixel: u8) -> f32 {
    (f32::from(pixel) / 255.0 - MEAN) / DEVIATION
}

/// Writes `image`, moved `down` and `right`, over the background in `target`. What leaves the frame is lost.
fn write_shifted(image: &[u8], (down, right): (i32, i32), target: &mut [f32]) {
    let side = SIDE as i32;
    for row in 0.max(down)..side.min(side + down) {
        for column in 0.max(right)..side.min(side + right) {
            let source = (row - down) * side + column - right;
            target[(row * side + column) as usize] = normalise(image[source as usize]);
        }
    }
}

/// Dimensions and bytes of a gzipped IDX file of unsigned bytes.
fn read_idx(path: &Path) -> Result<(Vec<usize>, Vec<u8>), Box<dyn Error>> {
    const UNSIGNED_BYTE: u8 = 8;
    let bad = |what: &str| format!("{}: {what}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| bad(&error.to_string()))?;
    GzDecoder::new(file)
        .read_to_end(&mut bytes)
        .map_err(|error| bad(&error.to_string()))?;
    let &[0, 0, UNSIGNED_BYTE, rank] = bytes.first_chunk().ok_or_else(|| bad("no header"))? else {
        return Err(bad("no IDX file of unsigned bytes").into());
    };
    let header = 4 + 4 * usize::from(rank);
    let sizes = bytes.get(4..header).ok_or_else(|| bad("the header is cut off"))?;
    let dimensions: Vec<usize> = sizes
        .as_chunks()
        .0
        .iter()
        .map(|&size: &[u8; 4]| u32::from_be_bytes(size) as usize)
        .collect();
    let elements = bytes.split_off(header);
    if elements.len() != dimensions.iter().product::<usize>() {
        return Err(bad("the elements do not fill the dimensions").into());
    }
    Ok((dimensions, elements))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_file_holds_ten_thousand_digits_of_every_class() {
        let digits = Digits::load().unwrap();
        assert_eq!(digits.len(), 10_000);
        let count = |class| digits.labels().iter().filter(|&&label| label == class).count();
        let counts: Vec<usize> = (0..CLASSES as u8).map(count).collect();
        assert_eq!(counts, [1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978]);
    }

    #[test]
    fn the_split_shares_no_digit_and_never_changes() {
        let digits = Digits::load().unwrap();
        let (first, second) = (digits.split(), digits.split());
        let mut seen = HashSet::new();
        for (set, again, size) in [
            (&first.train, &second.train, TRAIN),
            (&first.calibration, &second.calibration, CALIBRATION),
            (&first.test, &second.test, TEST),
        ] {
            assert_eq!(set.len(), size);
            assert_eq!(set.pixels, again.pixels);
            assert_eq!(set.labels, again.labels);
            for index in 0..set.len() {
                assert!(seen.insert(set.image(index).to_vec()), "an image is in two sets");
            }
            for class in 0..CLASSES as u8 {
                let share = set.labels.iter().filter(|&&label| label == class).count() * CLASSES;
                assert!(share > size / 2, "class {class} is rare in a set of {size}");
            }
        }
    }

    #[test]
    fn a_shift_moves_ink_and_drops_what_leaves_the_frame() {
        let mut image = [0u8; PIXELS];
        (image[0], image[5 * SIDE + 7], image[PIXELS - 1]) = (51, 255, 51);
        let mut target = [normalise(0); PIXELS];
        write_shifted(&image, (2, -1), &mut target);
        let ink: Vec<usize> = (0..PIXELS).filter(|&at| target[at] != normalise(0)).collect();
        assert_eq!(ink, [7 * SIDE + 6]);
        assert_eq!(target[ink[0]], normalise(255));
    }
}
