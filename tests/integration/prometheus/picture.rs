//! A picture of the dashboard, from the answers of a Prometheus: the same panels at the same places, drawn without
//! Grafana. `make dashboard` writes it to docs.

use super::server::{Prometheus, Series};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use serde_json::Value;
use std::{
    ops::Range,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// The size of one unit of the dashboard's grid, in pixels. The grid has 24 columns.
const UNIT: (u32, u32) = (50, 32);
const COLUMNS: u32 = 24;
const LEGEND_LINE: u32 = 15;
const MAX_LEGEND_LINES: usize = 6;
/// Colours that are distinct with colour blindness (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
const INK: RGBColor = RGBColor(31, 41, 51);
const FRAME: RGBColor = RGBColor(203, 210, 217);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the panels with the values of the last `seconds`.
pub async fn draw(prometheus: &Prometheus, panels: &[Value], seconds: f64, file: &Path) {
    let end = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    let range = end - seconds..end;
    let mut filled = Vec::new();
    for panel in panels {
        let mut series = Vec::new();
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"]
                .as_str()
                .unwrap()
                .replace("$__rate_interval", "15s");
            let name = target["legendFormat"].as_str().unwrap_or_default();
            let found = prometheus.range(&query, &range).await.into_iter();
            series.extend(found.map(|one| (legend(name, &one.labels), one)));
        }
        filled.push((panel, series));
    }
    let bottom = panels
        .iter()
        .map(|panel| grid(panel, "y") + grid(panel, "h"))
        .max();
    let size = (COLUMNS * UNIT.0, bottom.unwrap() * UNIT.1);
    let root = SVGBackend::new(file, size).into_drawing_area();
    // The background is readable on dark pages.
    root.fill(&WHITE).unwrap();
    for (panel, series) in &filled {
        let at = (grid(panel, "x") * UNIT.0, grid(panel, "y") * UNIT.1);
        let size = (grid(panel, "w") * UNIT.0, grid(panel, "h") * UNIT.1);
        draw_panel(&root.clone().shrink(at, size), panel, series, &range);
    }
    root.present().unwrap();
}

fn grid(panel: &Value, field: &str) -> u32 {
    panel["gridPos"][field].as_u64().unwrap().try_into().unwrap()
}

/// The legend of a series, as Grafana makes it.
fn legend(format: &str, labels: &Value) -> String {
    let mut text = format.to_owned();
    for (label, value) in labels.as_object().into_iter().flatten() {
        text = text.replace(&format!("{{{{{label}}}}}"), value.as_str().unwrap());
    }
    text
}

fn draw_panel(area: &Area<'_>, panel: &Value, series: &[(String, Series)], range: &Range<f64>) {
    let (width, height) = area.dim_in_pixel();
    let corners = [(4, 4), (pixel(width) - 4, pixel(height) - 4)];
    area.draw(&Rectangle::new(corners, FRAME)).unwrap();
    let title = ("sans-serif", 14).into_font().color(&INK);
    area.draw_text(panel["title"].as_str().unwrap(), &title, (14, 12))
        .unwrap();
    let unit = panel["fieldConfig"]["defaults"]["unit"]
        .as_str()
        .unwrap_or_default();
    if panel["type"] == "stat" {
        let value = series.first().and_then(|(_, one)| Some(one.points.last()?.1));
        let text = value.map_or("no data".to_owned(), |value| with_unit(value, unit));
        let middle = (pixel(width) / 2, pixel(height) / 2 + 8);
        let font = ("sans-serif", 26).into_font().color(&COLOURS[0]);
        area.draw_text(&text, &font.pos(Pos::new(HPos::Center, VPos::Center)), middle)
            .unwrap();
        return;
    }
    let lines = series.len().min(MAX_LEGEND_LINES) as u32;
    let plot = area
        .clone()
        .shrink((8, 30), (width - 20, height - 42 - lines * LEGEND_LINE));
    draw_curves(&plot, series, unit, range);
    for (number, (name, _)) in series.iter().take(MAX_LEGEND_LINES).enumerate() {
        let font = ("sans-serif", 12).into_font().color(&COLOURS[number]);
        let y = pixel(height - 10 - (lines - number as u32) * LEGEND_LINE);
        area.draw_text(name, &font, (20, y)).unwrap();
    }
}

fn draw_curves(area: &Area<'_>, series: &[(String, Series)], unit: &str, range: &Range<f64>) {
    let points = || series.iter().flat_map(|(_, one)| &one.points);
    let [least, most] = [f64::min, f64::max].map(|which| points().map(|point| point.1).fold(0.0, which));
    let top = if most > least { most * 1.1 } else { least + 1.0 };
    let mut chart = ChartBuilder::on(area)
        .x_label_area_size(20)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..range.end - range.start, least..top)
        .unwrap();
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .y_labels(4)
        .x_labels(5)
        .x_label_formatter(&|seconds| format!("{seconds:.0} s"))
        .y_label_formatter(&|value| with_unit(*value, unit))
        .draw()
        .unwrap();
    for ((_, one), colour) in series.iter().zip(COLOURS) {
        let curve = one
            .points
            .iter()
            .map(|(time, value)| (time - range.start, *value));
        chart
            .draw_series(LineSeries::new(curve, colour.stroke_width(2)))
            .unwrap();
    }
}

/// A value as a person reads it.
fn with_unit(value: f64, unit: &str) -> String {
    match unit {
        "s" if value.abs() >= 86400.0 => format!("{:.0} d", value / 86400.0),
        "s" if value.abs() >= 1.0 => format!("{value:.0} s"),
        "s" if value.abs() < 1e-6 => "0 s".to_owned(),
        "s" => format!("{:.1} ms", value * 1000.0),
        "reqps" | "ops" => format!("{value:.2}/s"),
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

fn pixel(size: u32) -> i32 {
    size.try_into().unwrap()
}
