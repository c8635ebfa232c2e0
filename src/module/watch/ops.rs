//! Every operation of a [`Watch`] backend, as the backend inside does it. Only products with a marked weight also show the
//! recorder what they are products with.

use super::{Watch, WatchTensor};
use burn::tensor::backend::ExecutionError;
use burn::tensor::ops::{
    ActivationOps, AttentionModuleOptions, BoolTensor, BoolTensorOps, ConvOptions, ConvTransposeOptions,
    DeformConv2dBackward, DeformConvOptions, Device, FloatTensor, FloatTensorOps, GridSampleOptions,
    IntTensor, IntTensorOps, InterpolateOptions, MaxPool2dBackward, MaxPool2dWithIndices, ModuleOps,
    QTensorOps, QuantizedTensor, TransactionOps, UnfoldOptions,
};
use burn::tensor::quantization::{QuantScheme, QuantizationParametersPrimitive};
use burn::tensor::{BoolDType, Distribution, FloatDType, IntDType, Scalar, Shape, Slice, TensorData};
use fista_pruner_backends::SolverOps;
use std::ops::Range;

/// Methods that hand their arguments on. Before each argument stands what it is: `f` a float tensor, `i` integers, `b`
/// booleans, `q` quantized; with `r` by reference, with `o` optional, with `v` several; `d` a device, and anything else by
/// its type in brackets. The same after the arrow; two letters are a pair.
macro_rules! as_inside {
    ($($name:ident($($kind:tt $argument:ident),*) -> $out:tt;)*) => {$(
        fn $name($($argument: as_inside!(@type $kind)),*) -> as_inside!(@type $out) {
            as_inside!(@wrap $out B::$name($(as_inside!(@open $kind $argument)),*))
        }
    )*};
    (@type f) => { FloatTensor<Self> };
    (@type fr) => { &FloatTensor<Self> };
    (@type fo) => { Option<FloatTensor<Self>> };
    (@type fv) => { Vec<FloatTensor<Self>> };
    (@type ff) => { (FloatTensor<Self>, FloatTensor<Self>) };
    (@type fi) => { (FloatTensor<Self>, IntTensor<Self>) };
    (@type i) => { IntTensor<Self> };
    (@type ir) => { &IntTensor<Self> };
    (@type iv) => { Vec<IntTensor<Self>> };
    (@type ii) => { (IntTensor<Self>, IntTensor<Self>) };
    (@type b) => { BoolTensor<Self> };
    (@type br) => { &BoolTensor<Self> };
    (@type bo) => { Option<BoolTensor<Self>> };
    (@type bv) => { Vec<BoolTensor<Self>> };
    (@type q) => { QuantizedTensor<Self> };
    (@type qr) => { &QuantizedTensor<Self> };
    (@type d) => { &Device<Self> };
    (@type D) => { Device<Self> };
    (@type [$other:ty]) => { $other };
    (@open f $x:ident) => { $x.tensor };
    (@open fr $x:ident) => { &$x.tensor };
    (@open fo $x:ident) => { $x.map(|x| x.tensor) };
    (@open fv $x:ident) => { $x.into_iter().map(|x| x.tensor).collect() };
    (@open $kind:tt $x:ident) => { $x };
    (@wrap f $x:expr) => { WatchTensor::plain($x) };
    (@wrap ff $x:expr) => {{ let (a, b) = $x; (WatchTensor::plain(a), WatchTensor::plain(b)) }};
    (@wrap fi $x:expr) => {{ let (a, b) = $x; (WatchTensor::plain(a), b) }};
    (@wrap $kind:tt $x:expr) => { $x };
}

impl<B: SolverOps> FloatTensorOps<Self> for Watch<B> {
    async fn float_into_data(tensor: FloatTensor<Self>) -> Result<TensorData, ExecutionError> {
        B::float_into_data(tensor.tensor).await
    }

    fn float_matmul(left: FloatTensor<Self>, right: FloatTensor<Self>) -> FloatTensor<Self> {
        right.record(&left);
        WatchTensor::plain(B::float_matmul(left.tensor, right.tensor))
    }

    as_inside! {
        float_from_data([TensorData] data, d device) -> f;
        float_random([Shape] shape, [Distribution] distribution, d device, [FloatDType] dtype) -> f;
        float_zeros([Shape] shape, d device, [FloatDType] dtype) -> f;
        float_ones([Shape] shape, d device, [FloatDType] dtype) -> f;
        float_full([Shape] shape, [Scalar] fill_value, d device, [FloatDType] dtype) -> f;
        float_device(fr tensor) -> D;
        float_to_device(f tensor, d device) -> f;
        float_into_int(f tensor, [IntDType] out_dtype) -> i;
        float_empty([Shape] shape, d device, [FloatDType] dtype) -> f;
        float_repeat_dim(f tensor, [usize] dim, [usize] times) -> f;
        float_add(f lhs, f rhs) -> f;
        float_add_scalar(f lhs, [Scalar] rhs) -> f;
        float_clamp_min(f tensor, [Scalar] min) -> f;
        float_clamp_max(f tensor, [Scalar] max) -> f;
        float_clamp(f tensor, [Scalar] min, [Scalar] max) -> f;
        float_sub(f lhs, f rhs) -> f;
        float_sub_scalar(f lhs, [Scalar] rhs) -> f;
        float_mul(f lhs, f rhs) -> f;
        float_mul_scalar(f lhs, [Scalar] rhs) -> f;
        float_div(f lhs, f rhs) -> f;
        float_div_scalar(f lhs, [Scalar] rhs) -> f;
        float_remainder(f lhs, f rhs) -> f;
        float_remainder_scalar(f lhs, [Scalar] rhs) -> f;
        float_cross(f lhs, f rhs, [usize] dim) -> f;
        float_neg(f tensor) -> f;
        float_recip(f tensor) -> f;
        float_transpose(f tensor) -> f;
        float_swap_dims(f tensor, [usize] dim1, [usize] dim2) -> f;
        float_permute(f tensor, [&[usize]] axes) -> f;
        float_flip(f tensor, [&[usize]] axes) -> f;
        float_reshape(f tensor, [Shape] shape) -> f;
        float_gather([usize] dim, f tensor, i indices) -> f;
        float_scatter_add([usize] dim, f tensor, i indices, f value) -> f;
        float_gather_nd(f data, i indices) -> f;
        float_select(f tensor, [usize] dim, i indices) -> f;
        float_select_add(f tensor, [usize] dim, i indices, f value) -> f;
        float_slice(f tensor, [&[Slice]] slices) -> f;
        float_slice_assign(f tensor, [&[Slice]] slices, f value) -> f;
        float_mask_where(f tensor, b mask, f value) -> f;
        float_mask_fill(f tensor, b mask, [Scalar] value) -> f;
        float_equal(f lhs, f rhs, [BoolDType] out_dtype) -> b;
        float_not_equal(f lhs, f rhs, [BoolDType] out_dtype) -> b;
        float_equal_elem(f lhs, [Scalar] rhs, [BoolDType] out_dtype) -> b;
        float_not_equal_elem(f lhs, [Scalar] rhs, [BoolDType] out_dtype) -> b;
        float_greater(f lhs, f rhs, [BoolDType] out_dtype) -> b;
        float_greater_elem(f lhs, [Scalar] rhs, [BoolDType] out_dtype) -> b;
        float_greater_equal(f lhs, f rhs, [BoolDType] out_dtype) -> b;
        float_greater_equal_elem(f lhs, [Scalar] rhs, [BoolDType] out_dtype) -> b;
        float_lower(f lhs, f rhs, [BoolDType] out_dtype) -> b;
        float_lower_elem(f lhs, [Scalar] rhs, [BoolDType] out_dtype) -> b;
        float_lower_equal(f lhs, f rhs, [BoolDType] out_dtype) -> b;
        float_lower_equal_elem(f lhs, [Scalar] rhs, [BoolDType] out_dtype) -> b;
        float_sum(f tensor) -> f;
        float_sum_dim(f tensor, [usize] dim) -> f;
        float_prod(f tensor) -> f;
        float_prod_dim(f tensor, [usize] dim) -> f;
        float_mean(f tensor) -> f;
        float_mean_dim(f tensor, [usize] dim) -> f;
        float_cumsum(f tensor, [usize] dim) -> f;
        float_cumprod(f tensor, [usize] dim) -> f;
        float_cummin(f tensor, [usize] dim) -> f;
        float_cummax(f tensor, [usize] dim) -> f;
        float_cast(f tensor, [FloatDType] dtype) -> f;
        float_exp(f tensor) -> f;
        float_log(f tensor) -> f;
        float_log1p(f tensor) -> f;
        float_powf(f lhs, f rhs) -> f;
        float_powi(f lhs, i rhs) -> f;
        float_powi_scalar(f lhs, [Scalar] rhs) -> f;
        float_powi_scalar_impl(f lhs, [Scalar] rhs) -> f;
        float_powf_scalar(f tensor, [Scalar] value) -> f;
        float_powf_scalar_impl(f tensor, [Scalar] value) -> f;
        float_sqrt(f tensor) -> f;
        float_abs(f tensor) -> f;
        float_cos(f tensor) -> f;
        float_sin(f tensor) -> f;
        float_tan(f tensor) -> f;
        float_cosh(f tensor) -> f;
        float_sinh(f tensor) -> f;
        float_tanh(f tensor) -> f;
        float_acos(f tensor) -> f;
        float_acosh(f tensor) -> f;
        float_asin(f tensor) -> f;
        float_asinh(f tensor) -> f;
        float_atan(f tensor) -> f;
        float_atanh(f tensor) -> f;
        float_atan2(f lhs, f rhs) -> f;
        float_round(f tensor) -> f;
        float_floor(f tensor) -> f;
        float_ceil(f tensor) -> f;
        float_trunc(f tensor) -> f;
        float_erf(f tensor) -> f;
        float_cat(fv tensors, [usize] dim) -> f;
        float_argmax(f tensor, [usize] dim, [IntDType] out_dtype) -> i;
        float_argtopk(f tensor, [usize] dim, [usize] k, [IntDType] out_dtype) -> i;
        float_topk(f tensor, [usize] dim, [usize] k) -> f;
        float_argmin(f tensor, [usize] dim, [IntDType] out_dtype) -> i;
        float_max(f tensor) -> f;
        float_max_dim(f tensor, [usize] dim) -> f;
        float_max_dim_with_indices(f tensor, [usize] dim, [IntDType] indices_dtype) -> fi;
        float_min(f tensor) -> f;
        float_min_dim(f tensor, [usize] dim) -> f;
        float_min_dim_with_indices(f tensor, [usize] dim, [IntDType] indices_dtype) -> fi;
        float_max_abs(f tensor) -> f;
        float_max_abs_dim(f tensor, [usize] dim) -> f;
        float_any(f tensor, [BoolDType] out_dtype) -> b;
        float_any_dim(f tensor, [usize] dim, [BoolDType] out_dtype) -> b;
        float_all(f tensor, [BoolDType] out_dtype) -> b;
        float_all_dim(f tensor, [usize] dim, [BoolDType] out_dtype) -> b;
        float_sign(f tensor) -> f;
        float_expand(f tensor, [Shape] shape) -> f;
        float_sort(f tensor, [usize] dim, [bool] descending) -> f;
        float_sort_with_indices(f tensor, [usize] dim, [bool] descending, [IntDType] indices_dtype) -> fi;
        float_argsort(f tensor, [usize] dim, [bool] descending, [IntDType] out_dtype) -> i;
        float_grid_sample_2d(f tensor, f grid, [GridSampleOptions] options) -> f;
        float_unfold(f tensor, [usize] dim, [usize] size, [usize] step) -> f;
        float_is_nan(f tensor, [BoolDType] out_dtype) -> b;
        float_is_inf(f tensor, [BoolDType] out_dtype) -> b;
    }
}

impl<B: SolverOps> IntTensorOps<Self> for Watch<B> {
    async fn int_into_data(tensor: IntTensor<Self>) -> Result<TensorData, ExecutionError> {
        B::int_into_data(tensor).await
    }

    as_inside! {
        int_empty([Shape] shape, d device, [IntDType] dtype) -> i;
        int_from_data([TensorData] data, d device) -> i;
        int_device(ir tensor) -> D;
        int_to_device(i tensor, d device) -> i;
        int_reshape(i tensor, [Shape] shape) -> i;
        int_slice(i tensor, [&[Slice]] slices) -> i;
        int_slice_assign(i tensor, [&[Slice]] slices, i value) -> i;
        int_into_float(i tensor, [FloatDType] out_dtype) -> f;
        int_mask_where(i tensor, b mask, i value) -> i;
        int_mask_fill(i tensor, b mask, [Scalar] value) -> i;
        int_gather([usize] dim, i tensor, i indices) -> i;
        int_scatter_add([usize] dim, i tensor, i indices, i value) -> i;
        int_gather_nd(i data, i indices) -> i;
        int_select(i tensor, [usize] dim, i indices) -> i;
        int_select_add(i tensor, [usize] dim, i indices, i value) -> i;
        int_repeat_dim(i tensor, [usize] dim, [usize] times) -> i;
        int_cat(iv tensors, [usize] dim) -> i;
        int_equal(i lhs, i rhs, [BoolDType] out_dtype) -> b;
        int_not_equal(i lhs, i rhs, [BoolDType] out_dtype) -> b;
        int_equal_elem(i lhs, [Scalar] rhs, [BoolDType] out_dtype) -> b;
        int_not_equal_elem(i lhs, [Scalar] rhs, [BoolDType] out_dtype) -> b;
        int_greater(i lhs, i rhs, [BoolDType] out_dtype) -> b;
        int_greater_elem(i lhs, [Scalar] rhs, [BoolDType] out_dtype) -> b;
        int_greater_equal(i lhs, i rhs, [BoolDType] out_dtype) -> b;
        int_greater_equal_elem(i lhs, [Scalar] rhs, [BoolDType] out_dtype) -> b;
        int_lower(i lhs, i rhs, [BoolDType] out_dtype) -> b;
        int_lower_elem(i lhs, [Scalar] rhs, [BoolDType] out_dtype) -> b;
        int_lower_equal(i lhs, i rhs, [BoolDType] out_dtype) -> b;
        int_lower_equal_elem(i lhs, [Scalar] rhs, [BoolDType] out_dtype) -> b;
        int_add(i lhs, i rhs) -> i;
        int_add_scalar(i lhs, [Scalar] rhs) -> i;
        int_powi(i lhs, i rhs) -> i;
        int_powi_scalar(i lhs, [Scalar] rhs) -> i;
        int_powi_scalar_impl(i lhs, [Scalar] rhs) -> i;
        int_clamp_min(i tensor, [Scalar] min) -> i;
        int_clamp_max(i tensor, [Scalar] max) -> i;
        int_clamp(i tensor, [Scalar] min, [Scalar] max) -> i;
        int_sub(i lhs, i rhs) -> i;
        int_sub_scalar(i lhs, [Scalar] rhs) -> i;
        int_mul(i lhs, i rhs) -> i;
        int_mul_scalar(i lhs, [Scalar] rhs) -> i;
        int_div(i lhs, i rhs) -> i;
        int_div_scalar(i lhs, [Scalar] rhs) -> i;
        int_remainder(i lhs, i rhs) -> i;
        int_remainder_scalar(i lhs, [Scalar] rhs) -> i;
        int_matmul(i lhs, i rhs) -> i;
        int_neg(i tensor) -> i;
        int_zeros([Shape] shape, d device, [IntDType] dtype) -> i;
        int_ones([Shape] shape, d device, [IntDType] dtype) -> i;
        int_full([Shape] shape, [Scalar] fill_value, d device, [IntDType] dtype) -> i;
        int_sum(i tensor) -> i;
        int_sum_dim(i tensor, [usize] dim) -> i;
        int_prod(i tensor) -> i;
        int_prod_dim(i tensor, [usize] dim) -> i;
        int_mean(i tensor) -> i;
        int_mean_dim(i tensor, [usize] dim) -> i;
        int_cumsum(i tensor, [usize] dim) -> i;
        int_cumprod(i tensor, [usize] dim) -> i;
        int_cummin(i tensor, [usize] dim) -> i;
        int_cummax(i tensor, [usize] dim) -> i;
        int_argmax(i tensor, [usize] dim) -> i;
        int_argtopk(i tensor, [usize] dim, [usize] k) -> i;
        int_topk(i tensor, [usize] dim, [usize] k) -> i;
        int_argmin(i tensor, [usize] dim) -> i;
        int_max(i tensor) -> i;
        int_max_dim(i tensor, [usize] dim) -> i;
        int_max_dim_with_indices(i tensor, [usize] dim) -> ii;
        int_max_abs(i tensor) -> i;
        int_max_abs_dim(i tensor, [usize] dim) -> i;
        int_min(i tensor) -> i;
        int_min_dim(i tensor, [usize] dim) -> i;
        int_min_dim_with_indices(i tensor, [usize] dim) -> ii;
        int_abs(i tensor) -> i;
        int_transpose(i tensor) -> i;
        int_swap_dims(i tensor, [usize] dim1, [usize] dim2) -> i;
        int_permute(i tensor, [&[usize]] axes) -> i;
        int_flip(i tensor, [&[usize]] axes) -> i;
        int_random([Shape] shape, [Distribution] distribution, d device, [IntDType] dtype) -> i;
        int_arange_step([Range<i64>] range, [usize] step, d device, [IntDType] dtype) -> i;
        int_arange([Range<i64>] range, d device, [IntDType] dtype) -> i;
        int_any(i tensor, [BoolDType] out_dtype) -> b;
        int_any_dim(i tensor, [usize] dim, [BoolDType] out_dtype) -> b;
        int_all(i tensor, [BoolDType] out_dtype) -> b;
        int_all_dim(i tensor, [usize] dim, [BoolDType] out_dtype) -> b;
        int_sign(i tensor) -> i;
        int_expand(i tensor, [Shape] shape) -> i;
        int_sort(i tensor, [usize] dim, [bool] descending) -> i;
        int_sort_with_indices(i tensor, [usize] dim, [bool] descending) -> ii;
        int_argsort(i tensor, [usize] dim, [bool] descending) -> i;
        bitwise_and(i lhs, i rhs) -> i;
        bitwise_and_scalar(i lhs, [Scalar] rhs) -> i;
        bitwise_or(i lhs, i rhs) -> i;
        bitwise_or_scalar(i lhs, [Scalar] rhs) -> i;
        bitwise_xor(i lhs, i rhs) -> i;
        bitwise_xor_scalar(i lhs, [Scalar] rhs) -> i;
        bitwise_not(i tensor) -> i;
        bitwise_left_shift(i lhs, i rhs) -> i;
        bitwise_left_shift_scalar(i lhs, [Scalar] rhs) -> i;
        bitwise_right_shift(i lhs, i rhs) -> i;
        bitwise_right_shift_scalar(i lhs, [Scalar] rhs) -> i;
        int_cast(i tensor, [IntDType] dtype) -> i;
        int_unfold(i tensor, [usize] dim, [usize] size, [usize] step) -> i;
    }
}

impl<B: SolverOps> BoolTensorOps<Self> for Watch<B> {
    async fn bool_into_data(tensor: BoolTensor<Self>) -> Result<TensorData, ExecutionError> {
        B::bool_into_data(tensor).await
    }

    as_inside! {
        bool_empty([Shape] shape, d device, [BoolDType] dtype) -> b;
        bool_zeros([Shape] shape, d device, [BoolDType] dtype) -> b;
        bool_ones([Shape] shape, d device, [BoolDType] dtype) -> b;
        bool_from_data([TensorData] data, d device) -> b;
        bool_into_int(b tensor, [IntDType] out_dtype) -> i;
        bool_into_float(b tensor, [FloatDType] out_dtype) -> f;
        bool_device(br tensor) -> D;
        bool_to_device(b tensor, d device) -> b;
        bool_reshape(b tensor, [Shape] shape) -> b;
        bool_slice(b tensor, [&[Slice]] slices) -> b;
        bool_slice_assign(b tensor, [&[Slice]] slices, b value) -> b;
        bool_mask_where(b tensor, b mask, b value) -> b;
        bool_mask_fill(b tensor, b mask, [Scalar] value) -> b;
        bool_gather([usize] dim, b tensor, i indices) -> b;
        bool_scatter_or([usize] dim, b tensor, i indices, b value) -> b;
        bool_select(b tensor, [usize] dim, i indices) -> b;
        bool_select_or(b tensor, [usize] dim, i indices, b value) -> b;
        bool_repeat_dim(b tensor, [usize] dim, [usize] times) -> b;
        bool_cat(bv tensors, [usize] dim) -> b;
        bool_equal(b lhs, b rhs) -> b;
        bool_not_equal(b lhs, b rhs) -> b;
        bool_equal_elem(b lhs, [Scalar] rhs) -> b;
        bool_not_equal_elem(b lhs, [Scalar] rhs) -> b;
        bool_not(b tensor) -> b;
        bool_and(b lhs, b rhs) -> b;
        bool_or(b lhs, b rhs) -> b;
        bool_xor(b lhs, b rhs) -> b;
        bool_transpose(b tensor) -> b;
        bool_swap_dims(b tensor, [usize] dim1, [usize] dim2) -> b;
        bool_permute(b tensor, [&[usize]] axes) -> b;
        bool_flip(b tensor, [&[usize]] axes) -> b;
        bool_any(b tensor) -> b;
        bool_any_dim(b tensor, [usize] dim) -> b;
        bool_all(b tensor) -> b;
        bool_all_dim(b tensor, [usize] dim) -> b;
        bool_expand(b tensor, [Shape] shape) -> b;
        bool_unfold(b tensor, [usize] dim, [usize] size, [usize] step) -> b;
    }
}

impl<B: SolverOps> ModuleOps<Self> for Watch<B> {
    fn linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
    ) -> FloatTensor<Self> {
        weight.record(&x);
        WatchTensor::plain(B::linear(x.tensor, weight.tensor, bias.map(|bias| bias.tensor)))
    }

    fn deform_conv2d_backward(
        x: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        mask: Option<FloatTensor<Self>>,
        bias: Option<FloatTensor<Self>>,
        output_grad: FloatTensor<Self>,
        options: DeformConvOptions<2>,
    ) -> DeformConv2dBackward<Self> {
        let (mask, bias) = (mask.map(|mask| mask.tensor), bias.map(|bias| bias.tensor));
        let (offset, weight) = (offset.tensor, weight.tensor);
        let inside =
            B::deform_conv2d_backward(x.tensor, offset, weight, mask, bias, output_grad.tensor, options);
        DeformConv2dBackward::new(
            WatchTensor::plain(inside.x_grad),
            WatchTensor::plain(inside.offset_grad),
            WatchTensor::plain(inside.weight_grad),
            inside.mask_grad.map(WatchTensor::plain),
            inside.bias_grad.map(WatchTensor::plain),
        )
    }

    fn max_pool2d_with_indices(
        x: FloatTensor<Self>,
        kernel_size: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
        dilation: [usize; 2],
        ceil_mode: bool,
    ) -> MaxPool2dWithIndices<Self> {
        let inside = B::max_pool2d_with_indices(x.tensor, kernel_size, stride, padding, dilation, ceil_mode);
        MaxPool2dWithIndices::new(WatchTensor::plain(inside.output), inside.indices)
    }

    fn max_pool2d_with_indices_backward(
        x: FloatTensor<Self>,
        kernel_size: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
        dilation: [usize; 2],
        ceil_mode: bool,
        output_grad: FloatTensor<Self>,
        indices: IntTensor<Self>,
    ) -> MaxPool2dBackward<Self> {
        let (x, grad) = (x.tensor, output_grad.tensor);
        let inside = B::max_pool2d_with_indices_backward(
            x,
            kernel_size,
            stride,
            padding,
            dilation,
            ceil_mode,
            grad,
            indices,
        );
        MaxPool2dBackward::new(WatchTensor::plain(inside.x_grad))
    }

    as_inside! {
        embedding(f weights, i indices) -> f;
        conv1d(f x, f weight, fo bias, [ConvOptions<1>] options) -> f;
        conv2d(f x, f weight, fo bias, [ConvOptions<2>] options) -> f;
        deform_conv2d(f x, f offset, f weight, fo mask, fo bias, [DeformConvOptions<2>] options) -> f;
        conv3d(f x, f weight, fo bias, [ConvOptions<3>] options) -> f;
        conv_transpose1d(f x, f weight, fo bias, [ConvTransposeOptions<1>] options) -> f;
        conv_transpose2d(f x, f weight, fo bias, [ConvTransposeOptions<2>] options) -> f;
        conv_transpose3d(f x, f weight, fo bias, [ConvTransposeOptions<3>] options) -> f;
        unfold4d(f x, [[usize; 2]] kernel_size, [UnfoldOptions] options) -> f;
        avg_pool1d(f x, [usize] kernel_size, [usize] stride, [usize] padding, [bool] count_include_pad, [bool] ceil_mode) -> f;
        avg_pool2d(f x, [[usize; 2]] kernel_size, [[usize; 2]] stride, [[usize; 2]] padding, [bool] count_include_pad, [bool] ceil_mode) -> f;
        avg_pool2d_backward(f x, f grad, [[usize; 2]] kernel_size, [[usize; 2]] stride, [[usize; 2]] padding, [bool] count_include_pad, [bool] ceil_mode) -> f;
        adaptive_avg_pool2d(f x, [[usize; 2]] output_size) -> f;
        adaptive_avg_pool2d_backward(f x, f grad) -> f;
        adaptive_avg_pool1d(f x, [usize] output_size) -> f;
        max_pool1d(f x, [usize] kernel_size, [usize] stride, [usize] padding, [usize] dilation, [bool] ceil_mode) -> f;
        max_pool2d(f x, [[usize; 2]] kernel_size, [[usize; 2]] stride, [[usize; 2]] padding, [[usize; 2]] dilation, [bool] ceil_mode) -> f;
        interpolate(f x, [[usize; 2]] output_size, [InterpolateOptions] options) -> f;
        interpolate_backward(f x, f grad, [[usize; 2]] output_size, [InterpolateOptions] options) -> f;
        attention(f query, f key, f value, bo mask, fo attn_bias, [AttentionModuleOptions] options) -> f;
        layer_norm(f tensor, f gamma, fo beta, [f64] epsilon) -> f;
        ctc_loss(f log_probs, i targets, i input_lengths, i target_lengths, [usize] blank) -> f;
        rfft(f signal, [usize] dim, [Option<usize>] n) -> ff;
        irfft(f spectrum_re, f spectrum_im, [usize] dim, [Option<usize>] n) -> f;
    }
}

impl<B: SolverOps> ActivationOps<Self> for Watch<B> {
    as_inside! {
        leaky_relu(f tensor, [Scalar] negative_slope) -> f;
        relu(f tensor) -> f;
        gelu(f tensor) -> f;
        prelu(f tensor, f alpha) -> f;
        sigmoid(f tensor) -> f;
        hard_sigmoid(f tensor, [Scalar] alpha, [Scalar] beta) -> f;
        log_sigmoid(f tensor) -> f;
        softmax(f tensor, [usize] dim) -> f;
        log_softmax(f tensor, [usize] dim) -> f;
        softmin(f tensor, [usize] dim) -> f;
    }
}

impl<B: SolverOps> QTensorOps<Self> for Watch<B> {
    async fn q_into_data(tensor: QuantizedTensor<Self>) -> Result<TensorData, ExecutionError> {
        B::q_into_data(tensor).await
    }

    fn quantize(
        tensor: FloatTensor<Self>,
        scheme: &QuantScheme,
        qparams: QuantizationParametersPrimitive<Self>,
    ) -> QuantizedTensor<Self> {
        let scales = qparams.scales.tensor;
        B::quantize(tensor.tensor, scheme, QuantizationParametersPrimitive { scales })
    }

    as_inside! {
        q_from_data([TensorData] data, d device) -> q;
        dequantize(q tensor, [FloatDType] dtype) -> f;
        q_device(qr tensor) -> D;
        q_to_device(q tensor, d device) -> q;
        q_reshape(q tensor, [Shape] shape) -> q;
        q_expand(q tensor, [Shape] shape) -> q;
        q_swap_dims(q tensor, [usize] dim1, [usize] dim2) -> q;
        q_permute(q tensor, [&[usize]] axes) -> q;
        q_flip(q tensor, [&[usize]] axes) -> q;
        q_select(q tensor, [usize] dim, i indices) -> q;
        q_slice(q tensor, [&[Slice]] slices) -> q;
    }
}

impl<B: SolverOps> TransactionOps<Self> for Watch<B> {}
