// Package pki makes the sandbox's identities: a CA, the API server's serving
// pair, the ServiceAccount key and one kubeconfig for each client. All of it
// lives in the data directory, readable by its owner only.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"
)

// Identity is one client of the API server: the kubeconfig NAME.kubeconfig is made for it.
type Identity struct {
	Name, User string
	Groups     []string
}

// Clients are the identities of every sandbox; each node has one more, NodeIdentity.
var Clients = []Identity{
	{"admin", "sandbox-admin", []string{"system:masters"}},
	{"controller-manager", "system:kube-controller-manager", nil},
	{"scheduler", "system:kube-scheduler", nil},
}

// NodeIdentity is what the Node authorizer expects of a kubelet.
func NodeIdentity(node string) Identity {
	return Identity{"node-" + node, "system:node:" + node, []string{"system:nodes"}}
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// Ensure writes everything into dir/pki and dir/*.kubeconfig, or keeps what a
// former run left there: a restart on a data directory keeps its identities.
func Ensure(dir, server string, nodes []string) error {
	done := filepath.Join(dir, "pki", "complete")
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(dir, "pki"), 0o700); err != nil {
		return err
	}
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	if err := ca.writeServing(filepath.Join(dir, "pki")); err != nil {
		return err
	}
	clients := append([]Identity{}, Clients...)
	for _, n := range nodes {
		clients = append(clients, NodeIdentity(n))
	}
	for _, id := range clients {
		if err := ca.writeKubeconfig(dir, server, id); err != nil {
			return err
		}
	}
	return os.WriteFile(done, nil, 0o600)
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t, err := template("sandbox-ca")
	if err != nil {
		return nil, err
	}
	t.IsCA, t.BasicConstraintsValid = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{cert, key, certPEM(der)}, nil
}

// writeServing writes the CA, the API server's serving pair, its client pair
// towards kubelets, and the key that signs ServiceAccount tokens.
func (a *authority) writeServing(dir string) error {
	crt, key, err := a.issue("kube-apiserver", nil, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return err
	}
	kubeletCrt, kubeletKey, err := a.issue("kube-apiserver-kubelet-client", []string{"system:masters"}, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return err
	}
	sa, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	saKey, err := keyPEM(sa)
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"ca.crt": a.pem, "apiserver.crt": crt, "apiserver.key": key, "sa.key": saKey,
		"kubelet-client.crt": kubeletCrt, "kubelet-client.key": kubeletKey,
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (a *authority) issue(cn string, orgs []string, usage x509.ExtKeyUsage) (crt, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t, err := template(cn)
	if err != nil {
		return nil, nil, err
	}
	t.Subject.Organization = orgs
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{usage}
	if usage == x509.ExtKeyUsageServerAuth {
		t.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 96, 0, 1)}
		t.DNSNames = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, &k.PublicKey, a.key)
	if err != nil {
		return nil, nil, err
	}
	key, err = keyPEM(k)
	return certPEM(der), key, err
}

func (a *authority) writeKubeconfig(dir, server string, id Identity) error {
	crt, key, err := a.issue(id.User, id.Groups, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return err
	}
	c := api.NewConfig()
	c.Clusters["sandbox"] = &api.Cluster{Server: server, CertificateAuthorityData: a.pem}
	c.AuthInfos[id.Name] = &api.AuthInfo{ClientCertificateData: crt, ClientKeyData: key}
	c.Contexts["sandbox"] = &api.Context{Cluster: "sandbox", AuthInfo: id.Name}
	c.CurrentContext = "sandbox"
	return clientcmd.WriteToFile(*c, filepath.Join(dir, id.Name+".kubeconfig"))
}

// SelfSigned is a serving pair for a kubelet: crtFile and keyFile are written,
// the API server does not check who signed it.
func SelfSigned(cn, crtFile, keyFile string) error {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t, err := template(cn)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &k.PublicKey, k)
	if err != nil {
		return err
	}
	key, err := keyPEM(k)
	if err != nil {
		return err
	}
	if err := os.WriteFile(crtFile, certPEM(der), 0o600); err != nil {
		return err
	}
	return os.WriteFile(keyFile, key, 0o600)
}

// ServerTLS is the client side for probes of the API server's own endpoints.
func ServerTLS(dir string) (*tls.Config, error) {
	b, err := os.ReadFile(filepath.Join(dir, "pki", "ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s/pki/ca.crt holds no certificate", dir)
	}
	return &tls.Config{RootCAs: pool}, nil
}

func template(cn string) (*x509.Certificate, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: n, Subject: pkix.Name{CommonName: cn},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(5, 0, 0),
	}, nil
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(k *ecdsa.PrivateKey) ([]byte, error) {
	b, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: b}), nil
}
