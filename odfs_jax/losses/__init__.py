"""Loss functions: pure, batched, float32."""
