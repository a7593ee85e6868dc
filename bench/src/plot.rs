//! Curves as SVG.

use crate::report::Curves;
use plotters::prelude::*;
use std::{error::Error, path::Path};

const SIZE: (u32, u32) = (560, 300);
/// The height of the plot, relative to the highest point: the legend is above all curves.
const LEGEND_SPACE: f64 = 1.5;
/// Colours that are distinct with colour blindness (Okabe and Ito).
const COLOURS: [RGBColor; 3] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115)];

/// Draws the curves to this file. The x-axis is logarithmic and has a label at each measured point; the y-axis begins at 0.
pub fn draw(curves: &Curves, file: &Path) -> Result<(), Box<dyn Error>> {
    let points = || curves.curves.iter().flat_map(|curve| &curve.points);
    let [least, most] = [f64::min, f64::max].map(|which| points().map(|p| p.0).reduce(which).unwrap_or(1.0));
    let top = points().map(|p| p.1).fold(0.0, f64::max) * LEGEND_SPACE;
    let mut measured: Vec<_> = points().map(|p| p.0).collect();
    measured.sort_by(f64::total_cmp);
    measured.dedup();
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    // The background is readable on dark pages.
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(&curves.title, ("sans-serif", 16))
        .margin(12)
        // Half of the last label of the x-axis is there.
        .margin_right(24)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d((least..most).log_scale().with_key_points(measured), 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .y_max_light_lines(1)
        .x_desc(curves.x)
        .y_desc(curves.y)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .draw()?;
    for (curve, colour) in curves.curves.iter().zip(COLOURS) {
        let line = LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2)).point_size(3);
        chart
            .draw_series(line)?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}
