//! int8 × int8 → int32 products of tensors, for users who write their own quantized layers.

use crate::error::{QuantError, Result};
use crate::kernels::dtypes::float_dtype;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor, TensorData};
use rayon::prelude::*;

/// The largest K whose sum of products of −128..=127 fits an i32 whatever the codes: `131071 · 2^14 < 2^31`.
const MAX_K: usize = 131_071;

/// `a [M, K] · b [K, N]`, exact, as an i32 tensor on the device of `a`.
///
/// Elements are codes −128..=127 in an integer dtype of any width. M, N and K may be 0, 1 or odd. The product runs on the host, in
/// i32; a quantized layer does not come through here, it packs its weight once for the kernels of its backend.
///
/// Source: torchao `kernel/intmm.py`, `int_matmul`.
///
/// Errors: a K of `b` other than `a`'s or above 131071 (the sum could leave i32), a code outside −128..=127 (named by its index).
///
/// ```
/// use burn::tensor::{Int, Tensor};
/// use burn_flex::Flex;
/// use burn_quantized::int_matmul;
///
/// let device = Default::default();
/// let a = Tensor::<Flex, 2, Int>::from_ints([[1, -128, 3]], &device);
/// let b = Tensor::<Flex, 2, Int>::from_ints([[4, 0], [-128, 1], [127, 2]], &device);
/// let product = int_matmul(a, b).unwrap();
/// assert_eq!(product.into_data().as_slice::<i32>().unwrap(), [16769, -122]);
/// ```
pub fn int_matmul<B: Backend>(a: Tensor<B, 2, Int>, b: Tensor<B, 2, Int>) -> Result<Tensor<B, 2, Int>> {
    let device = a.device();
    let (sums, shape) = accumulate(a, b)?;
    Ok(Tensor::from_data(TensorData::new(sums, shape), (&device, DType::I32)))
}

/// `int_matmul(a, b) · scales`, in the dtype of `scales`: one scale for each row of `a` (`[M, 1]`), or one for all (`[1, 1]`).
///
/// `y[m, n] = S(f32(acc[m, n]) · scales[m])`, one rounding to the dtype S of the scales. torchao casts `acc` to S first, which
/// overflows in f16 above 65504; with f32 scales the bits are the same. A scale for each output channel is a product of its own.
///
/// Source: torchao `kernel/intmm.py`, `int_scaled_matmul`.
///
/// Errors: as [`int_matmul`]; scales of another shape, or of a dtype other than f32, f16 and bf16.
pub fn int_scaled_matmul<B: Backend>(
    a: Tensor<B, 2, Int>,
    b: Tensor<B, 2, Int>,
    scales: Tensor<B, 2>,
) -> Result<Tensor<B, 2>> {
    let (device, dtype, rows) = (scales.device(), scales.dtype(), a.dims()[0]);
    let dims = scales.dims();
    if dims != [rows, 1] && dims != [1, 1] {
        return Err(QuantError::ShapeMismatch {
            what: "int_scaled_matmul: scales, one a row of a (or [1, 1])".into(),
            expected: vec![rows, 1],
            got: dims.to_vec(),
        });
    }
    let rounding = match dtype {
        DType::F32 | DType::F16 | DType::BF16 => float_dtype(dtype),
        other => {
            return Err(QuantError::InvalidSpec(format!(
                "int_scaled_matmul: scales are f32, f16 or bf16, not {other:?}"
            )));
        }
    };
    let (sums, shape) = accumulate(a, b)?;
    let scales: Vec<f32> = scales.into_data().iter::<f32>().collect();
    let scale = |row: usize| scales[if scales.len() == 1 { 0 } else { row }];
    let scaled = sums.iter().enumerate();
    let scaled: Vec<f32> = scaled
        .map(|(at, sum)| rounding.round(*sum as f32 * scale(at / shape[1])))
        .collect();
    Ok(Tensor::from_data(TensorData::new(scaled, shape), (&device, dtype)))
}

/// The sums of products, row-major, and their shape.
fn accumulate<B: Backend>(a: Tensor<B, 2, Int>, b: Tensor<B, 2, Int>) -> Result<(Vec<i32>, [usize; 2])> {
    let ([m, k], [k_of_b, n]) = (a.dims(), b.dims());
    if k != k_of_b {
        return Err(QuantError::ShapeMismatch {
            what: "int_matmul: b [K, N] for this a [M, K]".into(),
            expected: vec![k, n],
            got: vec![k_of_b, n],
        });
    }
    if k > MAX_K {
        return Err(QuantError::InvalidSpec(format!(
            "int_matmul: K = {k} could overflow i32: split K into parts of at most {MAX_K}"
        )));
    }
    let (a, b) = (codes(a, "a")?, codes(b, "b")?);
    let mut sums = vec![0; m * n];
    if !sums.is_empty() {
        sums.par_chunks_mut(n).enumerate().for_each(|(row, sums)| {
            for (x, weights) in a[row * k..(row + 1) * k].iter().zip(b.chunks_exact(n)) {
                for (sum, w) in sums.iter_mut().zip(weights) {
                    *sum = i32::wrapping_add(*sum, i32::from(*x) * i32::from(*w));
                }
            }
        });
    }
    Ok((sums, [m, n]))
}

/// The elements on the host.
fn codes<B: Backend>(tensor: Tensor<B, 2, Int>, name: &str) -> Result<Vec<i8>> {
    let data = tensor.into_data();
    let checked = data.iter::<i64>().enumerate().map(|(index, code)| {
        i8::try_from(code).map_err(|_| {
            QuantError::InvalidSpec(format!(
                "int_matmul: element {index} of {name} is {code}: codes lie in -128..=127"
            ))
        })
    });
    checked.collect()
}
