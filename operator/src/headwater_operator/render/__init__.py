"""Pure builders of Kubernetes manifests: values in, dict out."""
