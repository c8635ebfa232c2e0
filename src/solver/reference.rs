//! The same mathematics in f64 with plain loops: the twin that fast code is tested against. Slow on purpose.

/// A row-major f64 matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// `rows · columns` values.
    pub values: Vec<f64>,
}

impl Matrix {
    /// From row-major values.
    ///
    /// # Panics
    /// When there are not `rows · columns` of them.
    pub fn new(rows: usize, columns: usize, values: Vec<f64>) -> Self {
        assert_eq!(values.len(), rows * columns);
        Self {
            rows,
            columns,
            values,
        }
    }

    /// The product `self · other`, `[rows, other.columns]`.
    pub fn times(&self, other: &Self) -> Self {
        assert_eq!(self.columns, other.rows);
        let mut values = vec![0.0; self.rows * other.columns];
        for i in 0..self.rows {
            for k in 0..self.columns {
                let a = self.values[i * self.columns + k];
                for j in 0..other.columns {
                    values[i * other.columns + j] += a * other.values[k * other.columns + j];
                }
            }
        }
        Self::new(self.rows, other.columns, values)
    }

    /// The transpose, `[columns, rows]`.
    pub fn transposed(&self) -> Self {
        let values = (0..self.rows * self.columns)
            .map(|k| self.values[(k % self.rows) * self.columns + k / self.rows])
            .collect();
        Self::new(self.columns, self.rows, values)
    }

    fn zip(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        let values = self
            .values
            .iter()
            .zip(&other.values)
            .map(|(a, b)| f(*a, *b))
            .collect();
        Self::new(self.rows, self.columns, values)
    }
}

/// `1/2 ‖V X* − T‖²_F + λ ‖V‖₁` with the activations themselves: `v [m, n]`, `x [n, p]`, `target [m, p]`.
pub fn objective(v: &Matrix, x: &Matrix, target: &Matrix, lambda: f64) -> f64 {
    let residual = v.times(x).zip(target, |a, b| a - b);
    let squares: f64 = residual.values.iter().map(|r| r * r).sum();
    squares / 2.0 + lambda * v.values.iter().map(|v| v.abs()).sum::<f64>()
}

/// FISTA on `1/2 tr(V G Vᵀ) − tr(V Cᵀ) + λ ‖V‖₁` with step `1/L`: `gram [n, n]`, `cross [m, n]`.
pub fn fista(
    start: &Matrix,
    gram: &Matrix,
    cross: &Matrix,
    lambda: f64,
    lipschitz: f64,
    iterations: usize,
) -> Matrix {
    let (mut x, mut y, mut t) = (start.clone(), start.clone(), 1.0f64);
    for _ in 0..iterations {
        let gradient = y.times(gram).zip(cross, |a, b| a - b);
        let next = y.zip(&gradient, |y, g| {
            let z = y - g / lipschitz;
            z.signum() * (z.abs() - lambda / lipschitz).max(0.0)
        });
        let t_next = (1.0 + (1.0 + 4.0 * t * t).sqrt()) / 2.0;
        y = next.zip(&x, |new, old| new + (t - 1.0) / t_next * (new - old));
        (x, t) = (next, t_next);
    }
    x
}
