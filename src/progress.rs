//! What long work tells whoever waits for it. The library prints nothing; the command line turns events into a live view
//! or lines.

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
    /// A decoder layer of the stage begins.
    Layer {
        /// Its number, from 0.
        layer: usize,
        /// How many there are.
        layers: usize,
        /// How many [`Event::Operator`]s it will bring, over all branches.
        operators: usize,
    },
    /// An operator is about to be pruned.
    Solving {
        /// Its full name.
        name: &'a str,
        /// The decoder layer it belongs to.
        layer: usize,
        /// The branch it is pruned for, in the order in which the run was given them; 0 where there is one.
        branch: usize,
    },
    /// One step of the stage is done.
    Step,
    /// An operator is pruned.
    Operator {
        /// Its full name.
        name: &'a str,
        /// The decoder layer it belongs to.
        layer: usize,
        /// The branch it was pruned for, as in [`Event::Solving`].
        branch: usize,
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
