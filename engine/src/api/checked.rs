//! Streams that are held to their grammar at a point of the user's choice.

use super::stream::DataStream;
use super::upstream::{Make, Upstream};
use crate::graph::GraphRef;
use crate::stage::{Collector, Stage};
use crate::testing::GrammarCheck;

/// A stream that is checked.
pub struct Checked<U>(U);

impl<U: Upstream> Upstream for Checked<U> {
    type Out = U::Out;

    fn attach<D>(self, graph: &GraphRef, make: impl Make<D>)
    where
        D: Collector<U::Out> + Stage + 'static,
    {
        self.0
            .attach(graph, move |cx| Ok(GrammarCheck::new(make(cx)?)));
    }
}

impl<T: 'static, U: Upstream<Out = T>> DataStream<T, U> {
    /// Fails the job if what passes here breaks the grammar of streams: a watermark goes back, a record
    /// comes behind the last watermark, anything comes behind the end. For tests of operators and
    /// sources; every exchange checks likewise where `ChannelSettings::check_grammar` is set.
    pub fn check_grammar(self) -> DataStream<T, Checked<U>> {
        let DataStream { graph, up, place } = self;
        let up = Checked(up);
        DataStream { graph, up, place }
    }
}
