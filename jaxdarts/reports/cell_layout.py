"""Where do the parts of a drawn cell stand?"""

from __future__ import annotations

from dataclasses import dataclass

# Inches. A cell is a staircase: every state has a height of its own, its wires run to the right at that height and
# drop, left of a node, into one of the node's operations. So no label can meet another label, a node or a wire. Where
# no node has two operations, wires come from above, and a node's operation stands below the node before: this is half
# as wide.
BOX_HEIGHT, RADIUS, LANE, INPUT_WIDTH, OUTPUT_WIDTH = 0.27, 0.2, 0.15, 0.66, 0.54
_INPUT_STEP, _FIRST_STEP, _STEP, _BOX_OFFSET, _LANE_TO_BOX, _BOX_TO_NODE = 0.5, 0.66, 0.8, 0.165, 0.26, 0.36


@dataclass(frozen=True)
class Layout:
    """Where things stand within one cell, in inches from its upper left corner."""

    num_nodes: int
    box_width: float
    num_inputs: int
    most_incoming: int  # operations of the node that has most

    @property
    def from_above(self) -> bool:
        """Whether wires end at an operation's upper side instead of its left one."""
        return self.most_incoming == 1

    @property
    def lanes_width(self) -> float:
        return self.most_incoming * LANE

    def state_y(self, state: int) -> float:
        if state < self.num_inputs:
            return 0.2 + state * _INPUT_STEP
        last_input = 0.2 + (self.num_inputs - 1) * _INPUT_STEP
        taller = (self.most_incoming - 2) * _BOX_OFFSET  # a node's operations stand above and below its height
        return last_input + _FIRST_STEP + taller + (state - self.num_inputs) * (_STEP + 2 * taller)

    def box_y(self, place: int, count: int) -> float:
        """Relative to the node: its operations, evenly above and below."""
        return (2 * place - count + 1) * _BOX_OFFSET

    def lanes_x(self, node: int) -> float:
        """The left one of a node's vertical lanes."""
        pitch = self.lanes_width + self._lane_to_box + self.box_width + _BOX_TO_NODE + 2 * RADIUS
        return INPUT_WIDTH + LANE + node * pitch

    def box_x(self, node: int) -> float:
        return self.lanes_x(node) + self.lanes_width - LANE + self._lane_to_box

    @property
    def _lane_to_box(self) -> float:
        return -self.box_width / 2 if self.from_above else _LANE_TO_BOX

    def node_x(self, node: int) -> float:
        return self.box_x(node) + self.box_width + _BOX_TO_NODE + RADIUS

    def right_x(self, state: int) -> float:
        """Where the wires of a state begin."""
        return INPUT_WIDTH if state < self.num_inputs else self.node_x(state - self.num_inputs) + RADIUS

    @property
    def output_x(self) -> float:
        return self.node_x(self.num_nodes - 1) + RADIUS + 0.34

    @property
    def width(self) -> float:
        return self.output_x + OUTPUT_WIDTH

    @property
    def height(self) -> float:
        lowest = self.state_y(self.num_nodes + self.num_inputs - 1)
        return lowest + (self.most_incoming - 1) * _BOX_OFFSET + BOX_HEIGHT / 2
