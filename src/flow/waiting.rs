//! Ranges of batches that stay on the device until somebody asks for statistics: one reading then serves every layer.

use crate::dtype::FloatDtype;
use crate::kernels::dtypes::float_dtype;
use crate::observe::BatchRange;
use burn_backend::tensor::FloatTensor;
use burn_backend::{Backend, ExecutionError, TensorMetadata, get_device_settings, read_sync};
use burn_std::{FloatDType, Shape};

/// Smallest value, largest value, how many NaNs. Without NaNs, an infinity is the smallest or the largest value.
const VALUES: usize = 3;
/// Tensors that are kept before they are joined to one.
const MOST: usize = 128;

/// Which observer of a layer a batch is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Activation,
    Output,
}

/// What the host knows of a batch.
#[derive(Clone, Copy, Debug)]
struct Arrived {
    role: Role,
    dtype: FloatDtype,
    empty: bool,
}

/// Batches of one layer, in the order in which they came; of each batch that has elements, [`VALUES`] values on the device.
pub(super) struct Waiting<B: Backend> {
    batches: Vec<Arrived>,
    tensors: Vec<FloatTensor<B>>,
}

impl<B: Backend> Default for Waiting<B> {
    fn default() -> Self {
        Self {
            batches: vec![],
            tensors: vec![],
        }
    }
}

impl<B: Backend> Waiting<B> {
    /// Takes in a batch; nothing waits for the device.
    pub(super) fn push(&mut self, role: Role, x: &FloatTensor<B>) {
        let empty = x.shape().num_elements() == 0;
        self.batches.push(Arrived {
            role,
            dtype: float_dtype(x.dtype()),
            empty,
        });
        if empty {
            return;
        }
        self.tensors.push(range::<B>(x.clone()));
        if self.tensors.len() >= MOST {
            self.tensors = vec![join::<B>(core::mem::take(&mut self.tensors))];
        }
    }
}

/// Reads what waits, in one reading, and gives each batch to `each` with the place of its `Waiting`.
///
/// Errors: what the device says; nothing was given then.
pub(super) fn read<B: Backend>(
    waiting: Vec<Waiting<B>>,
    mut each: impl FnMut(usize, Role, BatchRange),
) -> Result<(), ExecutionError> {
    let (batches, tensors): (Vec<_>, Vec<_>) = waiting.into_iter().map(|one| (one.batches, one.tensors)).unzip();
    let tensors: Vec<_> = tensors.into_iter().flatten().collect();
    let values: Vec<f32> = if tensors.is_empty() {
        vec![]
    } else {
        read_sync(B::float_into_data(join::<B>(tensors)))?
            .iter::<f32>()
            .collect()
    };
    let mut ranges = values.chunks_exact(VALUES);
    for (at, batches) in batches.into_iter().enumerate() {
        for Arrived { role, dtype, empty } in batches {
            let range = if empty { None } else { ranges.next() };
            let [min, max, nans] = match range {
                Some(&[min, max, nans]) => [min, max, nans],
                _ => [0.0; VALUES],
            };
            let bad = if nans != 0.0 {
                Some(f32::NAN)
            } else {
                [max, min].into_iter().find(|end| !end.is_finite())
            };
            each(
                at,
                role,
                BatchRange {
                    min,
                    max,
                    bad,
                    dtype,
                    empty,
                },
            );
        }
    }
    Ok(())
}

/// The [`VALUES`] of a tensor with elements, as f32, in three passes over it.
fn range<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let x = B::float_reshape(x.clone(), Shape::new([x.shape().num_elements()]));
    let to_f32 = |x: FloatTensor<B>| match x.dtype() {
        burn_std::DType::F32 => x,
        _ => B::float_cast(x, FloatDType::F32),
    };
    let bool_dtype = get_device_settings::<B>(&B::float_device(&x)).bool_dtype;
    let values = vec![
        to_f32(B::float_min(x.clone())),
        to_f32(B::float_max(x.clone())),
        B::float_sum(B::bool_into_float(B::float_is_nan(x, bool_dtype), FloatDType::F32)),
    ];
    B::float_cat(values, 0)
}

/// One tensor after the other, on the device of the first.
fn join<B: Backend>(tensors: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    let device = B::float_device(&tensors[0]);
    let here = |tensor: FloatTensor<B>| {
        if B::float_device(&tensor) == device {
            tensor
        } else {
            B::float_to_device(tensor, &device)
        }
    };
    let mut tensors: Vec<_> = tensors.into_iter().map(here).collect();
    if tensors.len() == 1 {
        return tensors.remove(0);
    }
    B::float_cat(tensors, 0)
}
