//! Writes the README of the chart and the descriptions in its schema, for `make chart-reference`.

fn main() -> std::io::Result<()> {
    for (path, text) in chart::reference::generated() {
        std::fs::write(path, text)?;
    }
    Ok(())
}
