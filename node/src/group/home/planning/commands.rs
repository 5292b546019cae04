//! What an administrator wants done with the layout.

use shoal_protocol::{Code, Refusal, wire};
use wire::{plan::Cause, plan_command::Action};

use super::{Goal, under_way};
use crate::group::{
    Actor,
    home::{Effect, Home},
    plan::{self, Step, steps},
    sub_group::Now,
};

/// What a command comes to.
enum Command {
    Cut { sub_groups: u16, least: u32 },
    Even,
    Pause(bool),
    RollBack,
}

impl<R> Home<R> {
    /// What an administrator wants done with the layout.
    pub(in crate::group::home) fn handle_plan_command(
        &mut self,
        actor: &Actor,
        command: wire::PlanCommand,
        to: R,
        now: Now,
    ) {
        match self.decide_plan_command(actor, command) {
            Err(why) => self.effects.push_back(Effect::Changed(to, Err(why))),
            Ok(Command::Cut { sub_groups, least }) => {
                self.lay_out(Goal::SubGroups(sub_groups), Cause::Command, least, Some(to));
            }
            Ok(Command::Even) => self.lay_out(Goal::Even, Cause::Uneven, self.sub_groups_min(), Some(to)),
            Ok(Command::Pause(paused)) => {
                let layout = self.state.layout.as_deref().and_then(|layout| steps::paused(layout, paused));
                if let Some(plan) = &mut self.planning.plan {
                    plan.pause(paused);
                }
                let record = layout.map(|layout| self.write_layout(layout, now));
                self.answer_planned(to, record);
            }
            Ok(Command::RollBack) => {
                let record = self.take_step(Step::RollBack(format!("{} wanted it", actor.user)), now);
                self.answer_planned(to, record);
            }
        }
    }

    fn decide_plan_command(&self, actor: &Actor, command: wire::PlanCommand) -> Result<Command, Refusal> {
        if !actor.admin {
            return Err(Refusal::new(Code::NotAllowed, "a group's layout is for administrators"));
        }
        if !self.is_born() {
            return Err(Refusal::new(Code::UnknownGroup, "no such group"));
        }
        let bad = |reason: &str| Refusal::new(Code::BadRequest, reason);
        let is_paused = self.plan().map(|plan| plan.paused);
        match (command.action(), is_paused) {
            (Action::Start | Action::Rebalance, Some(_)) => Err(under_way()),
            (Action::Start, None) => {
                let wanted = u16::try_from(command.sub_groups).ok();
                let wanted = wanted.filter(|wanted| *wanted <= shoal_protocol::SLOTS);
                let wanted = wanted.ok_or_else(|| bad("a group has 16384 sub-groups at most"))?;
                let by_size = || plan::sub_groups(self.state.members, self.limits.sub_group_max);
                let sub_groups = if wanted == 0 { by_size() } else { wanted };
                Ok(Command::Cut { sub_groups, least: command.sub_groups })
            }
            (Action::Rebalance, None) => Ok(Command::Even),
            (Action::Unknown, _) => Err(bad("a command says what to do")),
            (_, None) => Err(bad("no plan is under way")),
            (Action::Pause, Some(true)) => Err(bad("the plan is paused already")),
            (Action::Resume, Some(false)) => Err(bad("the plan is not paused")),
            (Action::Pause, Some(false)) => Ok(Command::Pause(true)),
            (Action::Resume, Some(true)) => Ok(Command::Pause(false)),
            (Action::RollBack, Some(_)) => Ok(Command::RollBack),
        }
    }
}
