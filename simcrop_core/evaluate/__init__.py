"""How well a model does: pointing, presence, linear probes, dense features; with what chance and a
prior that never looks at the image would reach."""
