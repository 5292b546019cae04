//! Setting a feature: who may, for which slots, and what all others keep.

use shoal_protocol::{Feature, FeatureSlots, Features, Refusal, Seq, feature, wire};
use wire::{Role, record, set_feature::Slots};

use super::{Decided, Deciding, bad_request};
use crate::group::obeyed;

impl Deciding<'_> {
    /// Sets a feature or clears it; there may be so many.
    pub(super) fn set_feature(
        &mut self,
        set: &wire::SetFeature,
        features_max: usize,
    ) -> Result<Decided, Refusal> {
        self.must_be(Role::Admin, "only admins set features")?;
        let mut features = self.state.features.as_deref().map(Features::from_wire).unwrap_or_default();
        let record = match &set.value {
            Some(value) => self.given(set, value, &features, features_max)?,
            None => features
                .get(&set.name)
                .map(|_| wire::Feature { name: set.name.clone(), ..wire::Feature::default() }),
        };
        let Some(record) = record else {
            // There was none from the beginning.
            return Ok(Decided::nothing(features.changed().unwrap_or(Seq::FIRST)));
        };
        features.fold(self.seq, &record);
        self.state.features = Some(Box::new(features.to_wire()));
        Ok(Decided::record(record::Body::Feature(record), self.seq))
    }

    /// The record that gives it a value; none where it has that already.
    fn given(
        &self,
        set: &wire::SetFeature,
        value: &str,
        features: &Features,
        features_max: usize,
    ) -> Result<Option<wire::Feature>, Refusal> {
        feature::check_name(&set.name).map_err(|error| bad_request(error.to_string()))?;
        feature::check_value(value).map_err(|error| bad_request(error.to_string()))?;
        obeyed::check(&set.name, value)?;
        let slots = self.slots(set.slots)?;
        let held = features.get(&set.name);
        if held.is_none() && features.iter().len() >= features_max {
            return Err(bad_request(format!("a group has {features_max} features at most: clear one first")));
        }
        let before = held.and_then(Feature::settled).filter(|_| slots != FeatureSlots::ALL);
        let feature = Feature { value: value.to_owned(), slots, otherwise: before.map(str::to_owned) };
        Ok((held != Some(&feature)).then(|| feature.to_wire(&set.name)))
    }

    fn slots(&self, asked: Option<Slots>) -> Result<FeatureSlots, Refusal> {
        match asked {
            None => Ok(FeatureSlots::ALL),
            Some(Slots::Percent(percent @ 1..=100)) => Ok(FeatureSlots::Percent(percent)),
            Some(Slots::Percent(_)) => Err(bad_request("a share is from 1 to 100 percent".into())),
            Some(Slots::SubGroup(number)) => {
                let layout = self.state.layout.as_deref();
                let of = layout.map_or(1, |layout| layout.partitions.len().max(1));
                match (u16::try_from(number), u16::try_from(of)) {
                    (Ok(number), Ok(of)) if number < of => Ok(FeatureSlots::sub_group(number, of)),
                    _ => Err(bad_request(format!(
                        "there is no sub-group {number}: the group has {of}, numbered from 0"
                    ))),
                }
            }
        }
    }
}
