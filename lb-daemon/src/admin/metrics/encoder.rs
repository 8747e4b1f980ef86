//! Metric families, one call each.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

/// Writes families in the order of the calls.
#[derive(Debug)]
pub(super) struct Encoder<'a>(pub(super) DescriptorEncoder<'a>);

/// What a family is called and what it means.
#[derive(Debug)]
pub(super) struct Family {
    name: &'static str,
    unit: Option<Unit>,
    help: &'static str,
}

/// A family without a unit.
pub(super) const fn family(name: &'static str, help: &'static str) -> Family {
    Family { name, unit: None, help }
}

impl Family {
    /// The same with a unit, which becomes part of its name.
    pub(super) fn in_unit(self, unit: Unit) -> Self {
        Self { unit: Some(unit), ..self }
    }
}

impl Encoder<'_> {
    /// A gauge with one series.
    pub(super) fn gauge(&mut self, family: &Family, value: &impl EncodeGaugeValue) -> fmt::Result {
        self.0
            .encode_descriptor(family.name, family.help, family.unit.as_ref(), MetricType::Gauge)?
            .encode_gauge(value)
    }

    /// A gauge with a series for each set of labels.
    pub(super) fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        family: &Family,
        series: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(
            family.name,
            family.help,
            family.unit.as_ref(),
            MetricType::Gauge,
        )?;
        for (labels, value) in series {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// A counter with one series.
    pub(super) fn counter(&mut self, family: &Family, value: u64) -> fmt::Result {
        self.0
            .encode_descriptor(family.name, family.help, family.unit.as_ref(), MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// A counter with a series for each set of labels.
    pub(super) fn counters<L: EncodeLabelSet>(
        &mut self,
        family: &Family,
        series: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(
            family.name,
            family.help,
            family.unit.as_ref(),
            MetricType::Counter,
        )?;
        for (labels, value) in series {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    /// Facts, told by labels.
    pub(super) fn info(&mut self, family: &Family, labels: &impl EncodeLabelSet) -> fmt::Result {
        self.0
            .encode_descriptor(family.name, family.help, None, MetricType::Info)?
            .encode_info(labels)
    }
}
