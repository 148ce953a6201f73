// Judges images by a policy.json as podman, CRI-O and skopeo do: the code is that of go.podman.io/image, which all of them use.
//
//	policyjson POLICY REGISTRIES.D IMAGE...
//
// Prints a line for each image: "accepted IMAGE", or "refused IMAGE: REASON". IMAGE is docker://HOST/NAME:TAG; registries are asked by
// plain HTTP.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
)

func judge(policy *signature.Policy, registries, name string) error {
	reference, err := docker.ParseReference(strings.TrimPrefix(name, "docker:"))
	if err != nil {
		return err
	}
	system := &types.SystemContext{RegistriesDirPath: registries, DockerInsecureSkipTLSVerify: types.OptionalBoolTrue}
	source, err := reference.NewImageSource(context.Background(), system)
	if err != nil {
		return err
	}
	defer source.Close()
	judged, err := signature.NewPolicyContext(policy)
	if err != nil {
		return err
	}
	defer judged.Destroy()
	_, err = judged.IsRunningImageAllowed(context.Background(), image.UnparsedInstance(source, nil))
	return err
}

func main() {
	policy, err := signature.NewPolicyFromFile(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, name := range os.Args[3:] {
		if err := judge(policy, os.Args[2], name); err != nil {
			fmt.Printf("refused %s: %s\n", name, strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Printf("accepted %s\n", name)
		}
	}
}
