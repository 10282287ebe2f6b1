//! Matrix products with exact integer sums, and float sums in f64: what every kernel is held to.
//!
//! An activation is `[M, K]`, a weight `[N, K]`, an output `[M, N]`, all row-major.

/// `Σ a·b`, exact. Codes of up to 9 bits cannot overflow it below 2^46 of them.
pub fn dot_int(a: &[i32], b: &[i32]) -> i64 {
    a.iter().zip(b).map(|(a, b)| *a as i64 * *b as i64).sum()
}

/// `Σ a·b` in f64, in order: products of f32 are exact, so the error is that of the f64 additions.
pub fn dot_float(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| *a as f64 * *b as f64).sum()
}

/// `activation · weightᵀ` of integer codes, `[M, N]`; `size` is `[M, N, K]`. No zero point is subtracted.
///
/// An int8 × int8 product fits i32 up to K = 131,071; a uint8 × int8 one up to K = 65,793.
///
/// # Panics
/// If a matrix does not hold as many codes as `size` says.
///
/// ```
/// use burn_quantized::primitives::int_product;
/// assert_eq!(int_product(&[1, 2], &[3, 4, -128, 127], [1, 2, 2]), [11, 126]);
/// ```
pub fn int_product(activation: &[i32], weight: &[i32], size: [usize; 3]) -> Vec<i64> {
    product(activation, weight, size, dot_int)
}

/// `activation · weightᵀ` of floats with f64 sums, `[M, N]`; `size` is `[M, N, K]`.
///
/// # Panics
/// If a matrix does not hold as many values as `size` says.
pub fn float_product(activation: &[f32], weight: &[f32], size: [usize; 3]) -> Vec<f64> {
    product(activation, weight, size, dot_float)
}

fn product<T, R>(activation: &[T], weight: &[T], [m, n, k]: [usize; 3], dot: fn(&[T], &[T]) -> R) -> Vec<R> {
    assert!(
        activation.len() == m * k && weight.len() == n * k,
        "a product of {m}x{k} and {n}x{k}: {} and {} values",
        activation.len(),
        weight.len()
    );
    (0..m * n)
        .map(|at| (at / n, at % n))
        .map(|(row, col)| dot(&activation[row * k..(row + 1) * k], &weight[col * k..(col + 1) * k]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_sizes_work() {
        assert_eq!(int_product(&[], &[], [2, 3, 0]), [0; 6]);
        assert!(int_product(&[], &[1, 2], [0, 1, 2]).is_empty());
        assert!(float_product(&[1.0, 2.0], &[], [1, 0, 2]).is_empty());
    }

    #[test]
    fn integer_sums_are_exact_beyond_float_precision() {
        let codes = vec![-128; 4096];
        assert_eq!(int_product(&codes, &codes, [1, 1, 4096]), [4096 * 128 * 128]);
    }
}
