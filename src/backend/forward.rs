//! One macro for every operation that is the inner backend's own.

/// Rows that read like the trait's signatures, `F` for a float tensor: each becomes a method that hands the call to `B`.
///
/// Float arguments are made dense first (a packed weight is materialized and counted under the operation's name), float results are
/// wrapped; everything else is passed as it is.
///
/// ```text
/// fn float_add(lhs: F, rhs: F) -> F;
/// ```
/// becomes
/// ```text
/// fn float_add(lhs: FloatTensor<Self>, rhs: FloatTensor<Self>) -> FloatTensor<Self> {
///     FloatPrimitive::Dense(B::float_add(lhs.dense("float_add"), rhs.dense("float_add")))
/// }
/// ```
macro_rules! forward {
    (@method $name:ident () [$($params:tt)*] [$($value:expr,)*] -> $($ret:tt)+) => {
        fn $name($($params)*) -> forward!(@type $($ret)+) {
            forward!(@result B::$name($($value),*); $($ret)+)
        }
    };
    (@method $name:ident ($x:ident: F $(, $($rest:tt)*)?) [$($params:tt)*] [$($values:tt)*] -> $($ret:tt)+) => {
        forward!(
            @method $name ($($($rest)*)?)
            [$($params)* $x: FloatTensor<Self>,] [$($values)* $x.dense(stringify!($name)),] -> $($ret)+
        );
    };
    (@method $name:ident ($x:ident: Option<F> $(, $($rest:tt)*)?) [$($params:tt)*] [$($values:tt)*] -> $($ret:tt)+) => {
        forward!(
            @method $name ($($($rest)*)?)
            [$($params)* $x: Option<FloatTensor<Self>>,]
            [$($values)* $x.map(|tensor| tensor.dense(stringify!($name))),] -> $($ret)+
        );
    };
    (@method $name:ident ($x:ident: Vec<F> $(, $($rest:tt)*)?) [$($params:tt)*] [$($values:tt)*] -> $($ret:tt)+) => {
        forward!(
            @method $name ($($($rest)*)?)
            [$($params)* $x: Vec<FloatTensor<Self>>,]
            [$($values)* $x.into_iter().map(|tensor| tensor.dense(stringify!($name))).collect(),] -> $($ret)+
        );
    };
    (@method $name:ident ($x:ident: $type:ty $(, $($rest:tt)*)?) [$($params:tt)*] [$($values:tt)*] -> $($ret:tt)+) => {
        forward!(@method $name ($($($rest)*)?) [$($params)* $x: $type,] [$($values)* $x,] -> $($ret)+);
    };

    (@type F) => { FloatTensor<Self> };
    (@type (F, F)) => { (FloatTensor<Self>, FloatTensor<Self>) };
    (@type (F, $second:ty)) => { (FloatTensor<Self>, $second) };
    (@type $name:ident <B>) => { $name<Self> };
    (@type $type:ty) => { $type };

    (@result $value:expr; F) => { FloatPrimitive::Dense($value) };
    (@result $value:expr; (F, F)) => {{
        let (first, second) = $value;
        (FloatPrimitive::Dense(first), FloatPrimitive::Dense(second))
    }};
    (@result $value:expr; (F, $second:ty)) => {{
        let (first, second) = $value;
        (FloatPrimitive::Dense(first), second)
    }};
    (@result $value:expr; DeformConv2dBackward<B>) => {{
        let grads = $value;
        DeformConv2dBackward {
            x_grad: FloatPrimitive::Dense(grads.x_grad),
            offset_grad: FloatPrimitive::Dense(grads.offset_grad),
            weight_grad: FloatPrimitive::Dense(grads.weight_grad),
            mask_grad: grads.mask_grad.map(FloatPrimitive::Dense),
            bias_grad: grads.bias_grad.map(FloatPrimitive::Dense),
        }
    }};
    (@result $value:expr; MaxPool1dBackward<B>) => {
        MaxPool1dBackward { x_grad: FloatPrimitive::Dense($value.x_grad) }
    };
    (@result $value:expr; MaxPool2dBackward<B>) => {
        MaxPool2dBackward { x_grad: FloatPrimitive::Dense($value.x_grad) }
    };
    (@result $value:expr; MaxPool1dWithIndices<B>) => {{
        let pooled = $value;
        MaxPool1dWithIndices { output: FloatPrimitive::Dense(pooled.output), indices: pooled.indices }
    }};
    (@result $value:expr; MaxPool2dWithIndices<B>) => {{
        let pooled = $value;
        MaxPool2dWithIndices { output: FloatPrimitive::Dense(pooled.output), indices: pooled.indices }
    }};
    (@result $value:expr; $($other:tt)+) => { $value };

    ($(fn $name:ident $args:tt -> $ret:tt $(< $param:tt >)?;)*) => {
        $(forward!(@method $name $args [] [] -> $ret $(< $param >)?);)*
    };
}

pub(super) use forward;
