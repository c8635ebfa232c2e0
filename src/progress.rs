//! What long work tells whoever waits for it. The library prints nothing; the command line turns events into bars.

/// Something that happened in a long run.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A stage of `steps` steps begins, such as "layers" or "windows".
    Stage {
        /// The stage's name.
        name: &'static str,
        /// How many [`Event::Step`]s it has.
        steps: usize,
    },
    /// What is being worked on within the stage.
    Working {
        /// The layer, operator or file.
        on: &'a str,
    },
    /// One step of the stage is done.
    Step,
    /// An operator is pruned.
    Operator {
        /// Its full name.
        name: &'a str,
        /// Its relative squared error.
        relative_error: f64,
        /// Its fraction of zeros.
        sparsity: f64,
        /// Seconds the solver took.
        seconds: f64,
    },
    /// The stage is over.
    Done,
}

/// Receives events; implemented for closures.
pub trait Observer {
    /// Called for each event, in order.
    fn event(&mut self, event: Event<'_>);
}

impl<F: FnMut(Event<'_>)> Observer for F {
    fn event(&mut self, event: Event<'_>) {
        self(event);
    }
}

/// An observer that does nothing.
pub fn silent() -> impl Observer {
    |_: Event<'_>| {}
}
