//! Topic `bitpacking`.

use crate::fixtures::{Case, run};
use burn_quantized::dtype::pack::{
    NibbleOrder, pack_nibbles, pack_shards, pack_signed_nibbles, shard_widths, unpack_nibbles, unpack_shards,
    unpack_signed_nibbles,
};

#[test]
fn bitpacking() {
    run("bitpacking", |case| match case.text("op") {
        "shards" => shards(case),
        "nibble" => nibbles(case),
        op => Err(format!("unknown op {op}")),
    });
}

fn shards(case: &Case) -> Result<(), String> {
    let (bits, shape, dim) = (
        case.size("bits") as u32,
        case.sizes("shape"),
        case.int("pack_dim") as isize,
    );
    let codes = case.field("codes").bytes();
    let widths: Vec<_> = shard_widths(bits)
        .map_err(text)?
        .iter()
        .map(|width| *width as usize)
        .collect();
    assert_eq!(widths, case.sizes("shard_bits"));
    let shards = pack_shards(bits, &codes, &shape, dim).map_err(text)?;
    for (at, shard) in shards.iter().enumerate() {
        case.check_ints(&format!("shard{at}"), &ints(shard.iter().copied()));
    }
    match unpack_shards(bits, &shards, &shape, dim).map_err(text)? == codes {
        true => Ok(()),
        false => Err("the codes do not come back".into()),
    }
}

fn nibbles(case: &Case) -> Result<(), String> {
    let order = match case.text("order") {
        "low_first" => NibbleOrder::LowFirst,
        "high_first" => NibbleOrder::HighFirst,
        other => return Err(format!("unknown order {other}")),
    };
    let cols = *case.sizes("shape").last().ok_or("a shape without dims")?;
    let codes = case.field("codes").ints();
    let (packed, back) = if case.flag("signed") {
        let codes: Vec<i8> = codes.iter().map(|code| *code as i8).collect();
        let packed = pack_signed_nibbles(&codes, cols, order).map_err(text)?;
        let back = ints(unpack_signed_nibbles(&packed, order));
        (packed, back)
    } else {
        let codes: Vec<u8> = codes.iter().map(|code| *code as u8).collect();
        let packed = pack_nibbles(&codes, cols, order).map_err(text)?;
        let back = ints(unpack_nibbles(&packed, order));
        (packed, back)
    };
    case.check_ints("packed", &ints(packed));
    match back == codes {
        true => Ok(()),
        false => Err("the codes do not come back".into()),
    }
}

fn ints<T: Into<i32>>(values: impl IntoIterator<Item = T>) -> Vec<i32> {
    values.into_iter().map(Into::into).collect()
}

fn text(error: burn_quantized::QuantError) -> String {
    error.to_string()
}
