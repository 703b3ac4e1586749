"""Plans: what a run does, stage by stage. A plan is a function of the stages that have ended."""

from jaxdarts.plans.base import Built, Ended, Experiment, Moment, Observer, Outcome, Plan, Record, Stage

__all__ = ["Built", "Ended", "Experiment", "Moment", "Observer", "Outcome", "Plan", "Record", "Stage"]
