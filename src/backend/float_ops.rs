//! `FloatTensorOps`: products and views of a packed weight are the decorator's own, the rest is forwarded.

use super::forward::forward;
use super::{FloatPrimitive, Quantized, product, reads};
use crate::kernels::QuantKernels;
use burn_backend::ops::{FloatTensorOps, GridSampleOptions};
use burn_backend::tensor::{BoolTensor, Device, FloatTensor, IndexingUpdateOp, IntTensor};
use burn_backend::{Backend, Distribution, ExecutionError, Scalar, TensorData, TensorMetadata};
use burn_std::{BoolDType, FloatDType, IntDType, Shape, Slice};

impl<B: Backend, K: QuantKernels<B>> FloatTensorOps<Self> for Quantized<B, K> {
    fn float_into_data(tensor: FloatTensor<Self>) -> impl Future<Output = Result<TensorData, ExecutionError>> + Send {
        reads::add();
        B::float_into_data(tensor.dense("float_into_data"))
    }

    fn float_device(tensor: &FloatTensor<Self>) -> Device<Self> {
        match tensor {
            FloatPrimitive::Dense(tensor) => B::float_device(tensor),
            FloatPrimitive::Packed(weight) => weight.device.clone(),
        }
    }

    fn float_to_device(tensor: FloatTensor<Self>, device: &Device<Self>) -> FloatTensor<Self> {
        match tensor {
            FloatPrimitive::Dense(tensor) => FloatPrimitive::Dense(B::float_to_device(tensor, device)),
            FloatPrimitive::Packed(weight) => FloatPrimitive::Packed(weight.to_device(device)),
        }
    }

    fn float_cast(tensor: FloatTensor<Self>, dtype: FloatDType) -> FloatTensor<Self> {
        match tensor {
            FloatPrimitive::Dense(tensor) => FloatPrimitive::Dense(B::float_cast(tensor, dtype)),
            FloatPrimitive::Packed(mut weight) => {
                weight.dtype = dtype;
                FloatPrimitive::Packed(weight)
            }
        }
    }

    fn float_detach(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        match tensor {
            FloatPrimitive::Dense(tensor) => FloatPrimitive::Dense(B::float_detach(tensor)),
            packed => packed,
        }
    }

    fn float_set_require_grad(tensor: FloatTensor<Self>, require_grad: bool) -> FloatTensor<Self> {
        match tensor {
            FloatPrimitive::Dense(tensor) => FloatPrimitive::Dense(B::float_set_require_grad(tensor, require_grad)),
            packed => packed,
        }
    }

    fn float_is_require_grad(tensor: &FloatTensor<Self>) -> bool {
        match tensor {
            FloatPrimitive::Dense(tensor) => B::float_is_require_grad(tensor),
            FloatPrimitive::Packed(_) => false,
        }
    }

    fn float_matmul(lhs: FloatTensor<Self>, rhs: FloatTensor<Self>) -> FloatTensor<Self> {
        let lhs = lhs.dense("float_matmul");
        FloatPrimitive::Dense(match rhs {
            FloatPrimitive::Packed(weight) if weight.is_matrix() => product::linear("float_matmul", lhs, weight, None),
            rhs => B::float_matmul(lhs, rhs.dense("float_matmul")),
        })
    }

    fn float_select(tensor: FloatTensor<Self>, dim: usize, indices: IntTensor<Self>) -> FloatTensor<Self> {
        FloatPrimitive::Dense(match tensor {
            FloatPrimitive::Packed(weight) if dim == 0 && product::is_rows(&weight) => product::rows(weight, indices),
            tensor => B::float_select(tensor.dense("float_select"), dim, indices),
        })
    }

    fn float_reshape(tensor: FloatTensor<Self>, shape: Shape) -> FloatTensor<Self> {
        match tensor.view(|weight| weight.try_reshape(&shape)) {
            Ok(packed) => packed,
            Err(tensor) => FloatPrimitive::Dense(B::float_reshape(tensor.dense("float_reshape"), shape)),
        }
    }

    fn float_expand(tensor: FloatTensor<Self>, shape: Shape) -> FloatTensor<Self> {
        match tensor.view(|weight| weight.try_reshape(&shape)) {
            Ok(packed) => packed,
            Err(tensor) => FloatPrimitive::Dense(B::float_expand(tensor.dense("float_expand"), shape)),
        }
    }

    fn float_transpose(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        let rank = tensor.rank().max(2);
        match tensor.view(|weight| weight.try_swap_dims(rank - 2, rank - 1)) {
            Ok(packed) => packed,
            Err(tensor) => FloatPrimitive::Dense(B::float_transpose(tensor.dense("float_transpose"))),
        }
    }

    fn float_swap_dims(tensor: FloatTensor<Self>, dim1: usize, dim2: usize) -> FloatTensor<Self> {
        match tensor.view(|weight| weight.try_swap_dims(dim1, dim2)) {
            Ok(packed) => packed,
            Err(tensor) => FloatPrimitive::Dense(B::float_swap_dims(tensor.dense("float_swap_dims"), dim1, dim2)),
        }
    }

    fn float_permute(tensor: FloatTensor<Self>, axes: &[usize]) -> FloatTensor<Self> {
        match tensor.view(|weight| weight.try_permute(axes)) {
            Ok(packed) => packed,
            Err(tensor) => FloatPrimitive::Dense(B::float_permute(tensor.dense("float_permute"), axes)),
        }
    }

    forward! {
        fn float_from_data(data: TensorData, device: &Device<B>) -> F;
        fn float_random(shape: Shape, distribution: Distribution, device: &Device<B>, dtype: FloatDType) -> F;
        fn float_zeros(shape: Shape, device: &Device<B>, dtype: FloatDType) -> F;
        fn float_ones(shape: Shape, device: &Device<B>, dtype: FloatDType) -> F;
        fn float_full(shape: Shape, fill_value: Scalar, device: &Device<B>, dtype: FloatDType) -> F;
        fn float_into_int(tensor: F, out_dtype: IntDType) -> IntTensor<B>;
        fn float_empty(shape: Shape, device: &Device<B>, dtype: FloatDType) -> F;
        fn float_repeat_dim(tensor: F, dim: usize, times: usize) -> F;
        fn float_add(lhs: F, rhs: F) -> F;
        fn float_add_scalar(lhs: F, rhs: Scalar) -> F;
        fn float_clamp_min(tensor: F, min: Scalar) -> F;
        fn float_clamp_max(tensor: F, max: Scalar) -> F;
        fn float_clamp(tensor: F, min: Scalar, max: Scalar) -> F;
        fn float_sub(lhs: F, rhs: F) -> F;
        fn float_sub_scalar(lhs: F, rhs: Scalar) -> F;
        fn float_mul(lhs: F, rhs: F) -> F;
        fn float_mul_scalar(lhs: F, rhs: Scalar) -> F;
        fn float_div(lhs: F, rhs: F) -> F;
        fn float_div_scalar(lhs: F, rhs: Scalar) -> F;
        fn float_remainder(lhs: F, rhs: F) -> F;
        fn float_remainder_scalar(lhs: F, rhs: Scalar) -> F;
        fn float_cross(lhs: F, rhs: F, dim: usize) -> F;
        fn float_neg(tensor: F) -> F;
        fn float_recip(tensor: F) -> F;
        fn float_flip(tensor: F, axes: &[usize]) -> F;
        fn float_gather(dim: usize, tensor: F, indices: IntTensor<B>) -> F;
        fn float_scatter_add(dim: usize, tensor: F, indices: IntTensor<B>, value: F) -> F;
        fn float_scatter_nd(data: F, indices: IntTensor<B>, values: F, reduction: IndexingUpdateOp) -> F;
        fn float_gather_nd(data: F, indices: IntTensor<B>) -> F;
        fn float_select_add(tensor: F, dim: usize, indices: IntTensor<B>, value: F) -> F;
        fn float_slice(tensor: F, slices: &[Slice]) -> F;
        fn float_slice_assign(tensor: F, slices: &[Slice], value: F) -> F;
        fn float_mask_where(tensor: F, mask: BoolTensor<B>, value: F) -> F;
        fn float_mask_fill(tensor: F, mask: BoolTensor<B>, value: Scalar) -> F;
        fn float_equal(lhs: F, rhs: F, out_dtype: BoolDType) -> BoolTensor<B>;
        fn float_not_equal(lhs: F, rhs: F, out_dtype: BoolDType) -> BoolTensor<B>;
        fn float_equal_elem(lhs: F, rhs: Scalar, out_dtype: BoolDType) -> BoolTensor<B>;
        fn float_not_equal_elem(lhs: F, rhs: Scalar, out_dtype: BoolDType) -> BoolTensor<B>;
        fn float_greater(lhs: F, rhs: F, out_dtype: BoolDType) -> BoolTensor<B>;
        fn float_greater_elem(lhs: F, rhs: Scalar, out_dtype: BoolDType) -> BoolTensor<B>;
        fn float_greater_equal(lhs: F, rhs: F, out_dtype: BoolDType) -> BoolTensor<B>;
        fn float_greater_equal_elem(lhs: F, rhs: Scalar, out_dtype: BoolDType) -> BoolTensor<B>;
        fn float_lower(lhs: F, rhs: F, out_dtype: BoolDType) -> BoolTensor<B>;
        fn float_lower_elem(lhs: F, rhs: Scalar, out_dtype: BoolDType) -> BoolTensor<B>;
        fn float_lower_equal(lhs: F, rhs: F, out_dtype: BoolDType) -> BoolTensor<B>;
        fn float_lower_equal_elem(lhs: F, rhs: Scalar, out_dtype: BoolDType) -> BoolTensor<B>;
        fn float_sum(tensor: F) -> F;
        fn float_sum_dim(tensor: F, dim: usize) -> F;
        fn float_prod(tensor: F) -> F;
        fn float_prod_dim(tensor: F, dim: usize) -> F;
        fn float_mean(tensor: F) -> F;
        fn float_mean_dim(tensor: F, dim: usize) -> F;
        fn float_cumsum(tensor: F, dim: usize) -> F;
        fn float_cumprod(tensor: F, dim: usize) -> F;
        fn float_cummin(tensor: F, dim: usize) -> F;
        fn float_cummax(tensor: F, dim: usize) -> F;
        fn float_exp(tensor: F) -> F;
        fn float_log(tensor: F) -> F;
        fn float_log1p(tensor: F) -> F;
        fn float_powf(lhs: F, rhs: F) -> F;
        fn float_powi(lhs: F, rhs: IntTensor<B>) -> F;
        fn float_powi_scalar(lhs: F, rhs: Scalar) -> F;
        fn float_powi_scalar_impl(lhs: F, rhs: Scalar) -> F;
        fn float_powf_scalar(tensor: F, value: Scalar) -> F;
        fn float_powf_scalar_impl(tensor: F, value: Scalar) -> F;
        fn float_sqrt(tensor: F) -> F;
        fn float_abs(tensor: F) -> F;
        fn float_cos(tensor: F) -> F;
        fn float_sin(tensor: F) -> F;
        fn float_tan(tensor: F) -> F;
        fn float_cosh(tensor: F) -> F;
        fn float_sinh(tensor: F) -> F;
        fn float_tanh(tensor: F) -> F;
        fn float_acos(tensor: F) -> F;
        fn float_acosh(tensor: F) -> F;
        fn float_asin(tensor: F) -> F;
        fn float_asinh(tensor: F) -> F;
        fn float_atan(tensor: F) -> F;
        fn float_atanh(tensor: F) -> F;
        fn float_atan2(lhs: F, rhs: F) -> F;
        fn float_round(tensor: F) -> F;
        fn float_floor(tensor: F) -> F;
        fn float_ceil(tensor: F) -> F;
        fn float_trunc(tensor: F) -> F;
        fn float_erf(tensor: F) -> F;
        fn float_cat(tensors: Vec<F>, dim: usize) -> F;
        fn float_argmax(tensor: F, dim: usize, out_dtype: IntDType) -> IntTensor<B>;
        fn float_argtopk(tensor: F, dim: usize, k: usize, out_dtype: IntDType) -> IntTensor<B>;
        fn float_topk(tensor: F, dim: usize, k: usize) -> F;
        fn float_argmin(tensor: F, dim: usize, out_dtype: IntDType) -> IntTensor<B>;
        fn float_max(tensor: F) -> F;
        fn float_max_dim(tensor: F, dim: usize) -> F;
        fn float_max_dim_with_indices(tensor: F, dim: usize, indices_dtype: IntDType) -> (F, IntTensor<B>);
        fn float_min(tensor: F) -> F;
        fn float_min_dim(tensor: F, dim: usize) -> F;
        fn float_min_dim_with_indices(tensor: F, dim: usize, indices_dtype: IntDType) -> (F, IntTensor<B>);
        fn float_max_abs(tensor: F) -> F;
        fn float_max_abs_dim(tensor: F, dim: usize) -> F;
        fn float_any(tensor: F, out_dtype: BoolDType) -> BoolTensor<B>;
        fn float_any_dim(tensor: F, dim: usize, out_dtype: BoolDType) -> BoolTensor<B>;
        fn float_all(tensor: F, out_dtype: BoolDType) -> BoolTensor<B>;
        fn float_all_dim(tensor: F, dim: usize, out_dtype: BoolDType) -> BoolTensor<B>;
        fn float_sign(tensor: F) -> F;
        fn float_sort(tensor: F, dim: usize, descending: bool) -> F;
        fn float_sort_with_indices(
            tensor: F, dim: usize, descending: bool, indices_dtype: IntDType
        ) -> (F, IntTensor<B>);
        fn float_argsort(tensor: F, dim: usize, descending: bool, out_dtype: IntDType) -> IntTensor<B>;
        fn float_grid_sample_2d(tensor: F, grid: F, options: GridSampleOptions) -> F;
        fn float_unfold(tensor: F, dim: usize, size: usize, step: usize) -> F;
        fn float_is_nan(tensor: F, out_dtype: BoolDType) -> BoolTensor<B>;
        fn float_is_inf(tensor: F, out_dtype: BoolDType) -> BoolTensor<B>;
    }
}
