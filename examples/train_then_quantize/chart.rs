//! The chart: accuracy against bytes, as SVG.

use crate::table::Results;
use plotters::{coord::Shift, prelude::*};
use std::{error::Error, path::Path};

const WIDTH: u32 = 860;
const HEIGHT: u32 = 520;
const MARGIN: i32 = 16;
const FONT: &str = "sans-serif";
const TEXT_SIZE: i32 = 14;
const LINE_HEIGHT: i32 = 18;
const MARKER: i32 = 5;
/// Pixels between a marker and its label.
const LABEL_GAP: i32 = 14;
/// Points closer than this along the axis of bytes share a column of labels, in pixels.
const COLUMN: i32 = 60;

/// A place in pixels, from the top left corner.
type Pixel = (i32, i32);

/// Where a row's marker stands, and where its label begins.
struct Label<'a> {
    text: &'a str,
    point: Pixel,
    start: Pixel,
}

/// Draws every row as a labelled point.
pub fn draw(results: &Results, path: &Path) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    let megabytes = |bytes: usize| bytes as f64 / 1e6;
    let percent = |accuracy: f64| 100.0 * accuracy;
    let largest = results.rows.iter().map(|row| megabytes(row.bytes)).fold(0.0, f64::max);
    let accuracies = results.rows.iter().map(|row| percent(row.accuracy));
    let (low, high) = accuracies.fold((f64::MAX, f64::MIN), |(low, high), at| (low.min(at), high.max(at)));
    let room = 0.15 * (high - low).max(1.0);

    let mut chart = ChartBuilder::on(&root)
        .caption("Accuracy on 2,000 test digits against model size", (FONT, 20))
        .margin(MARGIN)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..largest * 1.12, low - room..high + room)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("model, MB (parameters, scales and zero points)")
        .y_desc("accuracy, %")
        .x_label_formatter(&|at| format!("{at:.1}"))
        .y_label_formatter(&|at| format!("{at:.1}"))
        .label_style((FONT, TEXT_SIZE))
        .draw()?;

    let points = results
        .rows
        .iter()
        .map(|row| (row.flow, (megabytes(row.bytes), percent(row.accuracy))));
    let points: Vec<_> = points.map(|(flow, at)| (flow, chart.backend_coord(&at))).collect();
    for label in place_labels(points) {
        draw_point(&root, &label)?;
    }
    root.present()?;
    Ok(())
}

/// A marker, its label and a thin line between the two.
fn draw_point(root: &DrawingArea<SVGBackend, Shift>, label: &Label) -> Result<(), Box<dyn Error>> {
    let Label {
        text,
        point,
        start: (x, y),
    } = *label;
    root.draw(&PathElement::new([point, (x - 3, y)], BLACK.mix(0.3)))?;
    root.draw(&Circle::new(point, MARKER, BLUE.mix(0.7).filled()))?;
    let style = (FONT, TEXT_SIZE).into_font().color(&BLACK);
    root.draw(&Text::new(text, (x, y - TEXT_SIZE / 2), style))?;
    Ok(())
}

/// Puts each label to the right of its point, and one below the other where points stand in one column.
fn place_labels(mut points: Vec<(&str, Pixel)>) -> Vec<Label<'_>> {
    points.sort_by_key(|&(_, point)| point);
    let mut columns: Vec<Vec<(&str, Pixel)>> = Vec::new();
    for (text, point) in points {
        match columns.last_mut() {
            Some(column) if point.0 - column[0].1.0 < COLUMN => column.push((text, point)),
            _ => columns.push(vec![(text, point)]),
        }
    }
    let mut labels = Vec::new();
    for mut column in columns {
        column.sort_by_key(|&(_, (_, y))| y);
        let right = column.iter().map(|&(_, (x, _))| x).max().unwrap_or(0) + LABEL_GAP;
        let mut free = i32::MIN;
        for (text, point) in column {
            let y = point.1.max(free);
            free = y + LINE_HEIGHT;
            labels.push(Label {
                text,
                point,
                start: (right, y),
            });
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Row;

    #[test]
    fn labels_of_one_column_do_not_cover_each_other() {
        let labels = place_labels(vec![
            ("a", (100, 50)),
            ("b", (102, 52)),
            ("c", (104, 50)),
            ("far", (300, 51)),
        ]);
        let near: Vec<i32> = labels[..3].iter().map(|label| label.start.1).collect();
        assert!(near.windows(2).all(|pair| pair[1] - pair[0] >= LINE_HEIGHT));
        assert_eq!((labels[3].text, labels[3].start.1), ("far", 51));
    }

    #[test]
    fn the_chart_names_every_flow() {
        let flows = [
            ("float", 4_000_000, 0.98),
            ("int8_weight_only", 1_000_000, 0.98),
            ("int2_weight_only", 300_000, 0.5),
        ];
        let rows = flows.map(|(flow, bytes, accuracy)| Row::new(flow, accuracy, bytes, None, String::new()));
        let path = std::env::temp_dir().join(format!("train_then_quantize-chart-{}.svg", std::process::id()));
        draw(
            &Results {
                rows: rows.into(),
                reload_bit_identical: true,
            },
            &path,
        )
        .unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(flows.iter().all(|(flow, ..)| svg.contains(flow)));
    }
}
