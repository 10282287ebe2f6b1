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
/// An upper bound of a letter's width in pixels; nothing here measures fonts.
const LETTER_WIDTH: i32 = 8;

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
    let sizes = results.rows.iter().map(|row| megabytes(row.bytes));
    let (smallest, largest) = sizes.fold((f64::MAX, f64::MIN), |(low, high), at| (low.min(at), high.max(at)));
    let accuracies = results.rows.iter().map(|row| percent(row.accuracy));
    let (low, high) = accuracies.fold((f64::MAX, f64::MIN), |(low, high), at| (low.min(at), high.max(at)));
    let room = 0.15 * (high - low).max(1.0);

    let mut chart = ChartBuilder::on(&root)
        .caption("Accuracy on test digits against model size", (FONT, 20))
        .margin(MARGIN)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((smallest / 1.5..largest * 1.5).log_scale(), low - room..high + room)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("model, MB with scales and zero points (logarithmic)")
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
    for label in place_labels(&points) {
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

/// Puts each label to the right of its point, as near to its height as leaves it clear of all markers and other labels.
fn place_labels<'a>(points: &[(&'a str, Pixel)]) -> Vec<Label<'a>> {
    let half = LINE_HEIGHT / 2;
    let width = |text: &str| LETTER_WIDTH * text.len() as i32;
    let mut labels: Vec<Label> = Vec::new();
    for &(text, point) in points {
        let clear = |&(x, y): &Pixel| {
            let off_markers = points.iter().all(|&(_, (marker, height))| {
                marker + MARKER < x || marker - MARKER > x + width(text) || (height - y).abs() > half
            });
            let off_labels = labels.iter().all(|label| {
                let (start, height) = label.start;
                start > x + width(text) || start + width(label.text) < x || (height - y).abs() >= LINE_HEIGHT
            });
            off_markers && off_labels
        };
        let x = point.0 + LABEL_GAP;
        let steps = (0..).flat_map(|step| [step, -step]);
        let start = steps
            .map(|step| (x, point.1 + step))
            .find(clear)
            .expect("somewhere above or below is room");
        labels.push(Label { text, point, start });
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Row;

    #[test]
    fn labels_of_neighbours_do_not_cover_each_other() {
        let labels = place_labels(&[("a", (100, 50)), ("b", (102, 52)), ("c", (104, 50)), ("far", (300, 51))]);
        let near: Vec<i32> = labels[..3].iter().map(|label| label.start.1).collect();
        assert!(
            near.iter()
                .all(|a| near.iter().filter(|b| (a - *b).abs() < LINE_HEIGHT).count() == 1)
        );
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
                backend: "b".into(),
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
