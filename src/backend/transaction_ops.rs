//! `TransactionOps`: dense reads go to the inner backend as one batch.

use super::{FloatPrimitive, Quantized};
use crate::kernels::QuantKernels;
use burn_backend::ops::{QTensorOps, TransactionOps, TransactionPrimitive, TransactionPrimitiveData};
use burn_backend::{Backend, ExecutionError};

impl<B: Backend, K: QuantKernels<B>> TransactionOps<Self> for Quantized<B, K> {
    async fn tr_execute(transaction: TransactionPrimitive<Self>) -> Result<TransactionPrimitiveData, ExecutionError> {
        super::reads::add();
        let floats = transaction.read_floats.into_iter();
        let floats = floats
            .map(|tensor: FloatPrimitive<B, K>| tensor.dense("tr_execute"))
            .collect();
        let batch = TransactionPrimitive::<B>::new(floats, Vec::new(), transaction.read_ints, transaction.read_bools);
        let mut data = B::tr_execute(batch).await?;
        for tensor in transaction.read_qfloats {
            data.read_qfloats
                .push(<Self as QTensorOps<Self>>::q_into_data(tensor).await?);
        }
        Ok(data)
    }
}
