//! The search for the part of a histogram that is worth quantizing.

use crate::observe::Histogram;

/// The fraction of all counts that a proposal cuts from a tail beyond the last one.
const STEP: f64 = 1e-5;

/// The edges of the bins that the search keeps.
///
/// It starts with every bin. The bounds `alpha` and `beta`, quantiles at first 0 and 1, propose to move inwards by 1e-5 each; the side whose
/// move would drop more bins is taken (the start only if strictly more). Where that changes the bins, the error of mapping what is kept
/// to `levels` codes decides, and the search ends before the first increase.
pub(super) fn search(histogram: &Histogram, levels: usize) -> (f32, f32) {
    let width = histogram.bin_width();
    if width == 0.0 {
        return (histogram.min(), histogram.max());
    }
    let cumulative: Vec<f64> = histogram
        .counts()
        .iter()
        .scan(0.0, |sum, count| {
            *sum += count;
            Some(*sum)
        })
        .collect();
    let total = cumulative[cumulative.len() - 1];
    let (mut start, mut end) = (0, cumulative.len() - 1);
    let (mut alpha, mut beta) = (0.0, 1.0);
    let mut least = f64::INFINITY;
    while alpha < beta {
        let (next_alpha, next_beta) = (alpha + STEP, beta - STEP);
        let mut left = start;
        while left < end && cumulative[left] < next_alpha * total {
            left += 1;
        }
        let mut right = end;
        while right > start && cumulative[right] > next_beta * total {
            right -= 1;
        }
        let next = if left - start > end - right {
            alpha = next_alpha;
            (left, end)
        } else {
            beta = next_beta;
            (start, right)
        };
        if next == (start, end) {
            continue;
        }
        let error = quantization_error(histogram, next.0, next.1, levels);
        if error > least {
            break;
        }
        least = error;
        (start, end) = next;
    }
    let edge = |bin: usize| (f64::from(histogram.min()) + width * bin as f64) as f32;
    (edge(start), edge(end + 1))
}

/// Expected squared error, summed over all counts, of mapping every bin to `levels` equal levels over the bins `start..=end`. A source bin
/// is uniform inside; what lies outside the levels goes to the first or the last one.
fn quantization_error(histogram: &Histogram, start: usize, end: usize, levels: usize) -> f64 {
    let width = histogram.bin_width();
    let level_width = width * (end + 1 - start) as f64 / levels as f64;
    let half = level_width / 2.0;
    let level_of = |x: f64| (x / level_width).floor().clamp(0.0, (levels - 1) as f64);
    let cubes = |begin: f64, end: f64| (end.powi(3) - begin.powi(3)) / 3.0;
    let counts = histogram.counts().iter().enumerate();
    counts
        .filter(|(_, count)| **count > 0.0)
        .map(|(bin, count)| {
            let begin = (bin as f64 - start as f64) * width;
            let end = begin + width;
            let (first, last) = (level_of(begin), level_of(end));
            let in_first = cubes(begin - (first * level_width + half), half);
            let between = (last - first - 1.0) * cubes(-half, half);
            let in_last = cubes(-half, end - (last * level_width + half));
            count / width * (in_first + between + in_last)
        })
        .sum()
}
