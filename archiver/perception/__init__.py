"""How far apart two pictures look: features of pretrained networks, and the distances built on them."""
