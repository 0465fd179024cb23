package cri

import (
	"context"
	"fmt"
	"strings"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// nonRoot is the user that every image claims, so that runAsNonRoot is satisfied.
const nonRoot = 65532

// Images says that every image is there: only the command matters. One of a
// registry below .invalid (RFC 2606) is nowhere, for those who want to see
// what a wrong image does.
type Images struct{}

func missing(i *rt.ImageSpec) bool {
	registry, _, _ := strings.Cut(i.GetImage(), "/")
	return strings.HasSuffix(registry, ".invalid")
}

// ListImages implements the CRI.
func (Images) ListImages(context.Context, *rt.ImageFilter) ([]*rt.Image, error) { return nil, nil }

// ImageStatus implements the CRI.
func (Images) ImageStatus(_ context.Context, i *rt.ImageSpec, _ bool) (*rt.ImageStatusResponse, error) {
	if missing(i) {
		return &rt.ImageStatusResponse{}, nil
	}
	return &rt.ImageStatusResponse{Image: &rt.Image{Id: i.Image, RepoTags: []string{i.Image}, Size: 1, Uid: &rt.Int64Value{Value: nonRoot}}}, nil
}

// PullImage implements the CRI.
func (Images) PullImage(_ context.Context, i *rt.ImageSpec, _ *rt.AuthConfig, _ *rt.PodSandboxConfig) (string, error) {
	if missing(i) {
		return "", fmt.Errorf("%s cannot be pulled: no such registry", i.Image)
	}
	return i.Image, nil
}

// RemoveImage implements the CRI.
func (Images) RemoveImage(context.Context, *rt.ImageSpec) error { return nil }

// ImageFsInfo implements the CRI.
func (Images) ImageFsInfo(context.Context) (*rt.ImageFsInfoResponse, error) {
	return &rt.ImageFsInfoResponse{}, nil
}
