//! The decorator as a backend: operations complete, training unchanged, stock modules on packed weights, views that keep codes.

#[path = "decorator/helpers.rs"]
mod helpers;
#[path = "decorator/int_matmul.rs"]
mod int_matmul;
#[path = "decorator/modules.rs"]
mod modules;
#[path = "decorator/ops.rs"]
mod ops;
#[path = "decorator/products.rs"]
mod products;
#[path = "decorator/stock.rs"]
mod stock;
#[path = "decorator/training.rs"]
mod training;
#[path = "decorator/views.rs"]
mod views;
