"""Off-policy learning of continuous actions: soft actor-critic with twin critics and an automatic temperature."""
