//! How many cubes run.

use cubecl::prelude::*;

/// Cubes in one dim, on every API.
const LIMIT: usize = 65_535;

/// `columns × rows` cubes. A row of cubes is `CUBE_POS_Y + CUBE_POS_Z · CUBE_COUNT_Y`; rows at the end may be too many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Grid {
    columns: usize,
    rows: usize,
    layers: usize,
}

impl Grid {
    /// # Panics
    /// If there are more columns than one dim takes, or more rows than two.
    pub fn new(columns: usize, rows: usize) -> Self {
        let layers = rows.div_ceil(LIMIT);
        let grid = Self {
            columns,
            rows: rows.div_ceil(layers.max(1)),
            layers,
        };
        assert!(
            columns <= LIMIT && layers <= LIMIT,
            "{columns}x{rows} cubes are more than a device can launch"
        );
        grid
    }

    pub fn count(&self) -> CubeCount {
        CubeCount::Static(self.columns as u32, self.rows as u32, self.layers as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_rows_spread_over_two_dims() {
        assert_eq!(
            Grid::new(3, 7),
            Grid {
                columns: 3,
                rows: 7,
                layers: 1
            }
        );
        let grid = Grid::new(1, 200_000);
        assert!(
            grid.rows <= LIMIT && grid.rows * grid.layers >= 200_000 && grid.rows * grid.layers < 200_000 + grid.layers
        );
    }

    #[test]
    #[should_panic(expected = "65536x1 cubes")]
    fn too_many_columns_are_refused() {
        Grid::new(65_536, 1);
    }
}
