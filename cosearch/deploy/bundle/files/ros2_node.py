"""A ROS 2 node around the agent of this folder. NOT RUN WITH ROS 2: there was none here; a test runs it on stand-ins for rclpy.

    python3 ros2_node.py --ros-args -r observation:=/camera/image -p greedy:=true

Subscribes ``observation``: ``std_msgs/UInt8MultiArray`` for images (height, width, channels), ``std_msgs/Float32MultiArray`` for
vectors, in the order of ``input_names`` in ``contract.json``. Once a control period it publishes ``action`` for the newest one:
``std_msgs/Int64`` or ``std_msgs/Float32MultiArray``, in the order of ``action_names``, scaled and clipped. Needs rclpy, numpy and
onnxruntime.
"""

from typing import Any, Optional

import numpy as np
import rclpy
from rclpy.node import Node
from run_agent import Agent
from std_msgs.msg import Float32MultiArray, Int64, UInt8MultiArray


class AgentNode(Node):
    """Acts once a period on the newest observation; without one it waits."""

    def __init__(self) -> None:
        super().__init__("agent")
        self.agent = Agent()
        self.greedy = self.declare_parameter("greedy", False).value
        self.discrete = self.agent.contract["policy"] == "categorical"
        self.newest: Optional[np.ndarray] = None
        taken = UInt8MultiArray if self.agent.dtype == np.uint8 else Float32MultiArray
        self.create_subscription(taken, "observation", self.take, 1)
        self.publisher = self.create_publisher(Int64 if self.discrete else Float32MultiArray, "action", 1)
        self.create_timer(self.agent.period_s, self.act)

    def take(self, message: Any) -> None:
        """Keep an observation; one of another length is refused once in the log, and then ignored."""
        values = np.array(message.data, self.agent.dtype)
        if values.size == np.prod(self.agent.shape):
            self.newest = values.reshape(self.agent.shape)
        else:
            self.get_logger().error(f"expected {self.agent.shape}, got {values.size} numbers", once=True)

    def act(self) -> None:
        """Publish the action for the newest observation."""
        if self.newest is None:
            return
        action = self.agent(self.newest, greedy=bool(self.greedy))
        found = Int64(data=int(action)) if self.discrete else Float32MultiArray(data=[float(value) for value in action])
        self.publisher.publish(found)


def main() -> None:
    """Run until the node is stopped."""
    rclpy.init()
    rclpy.spin(AgentNode())


if __name__ == "__main__":
    main()
