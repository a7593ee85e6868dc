package controlplane

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/csv"
	"encoding/hex"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// users are the holders of a token, by the name of their kubeconfig.
var users = map[string]struct{ name, group string }{
	"admin":              {"admin", "system:masters"},
	"controller-manager": {"system:kube-controller-manager", ""},
	"scheduler":          {"system:kube-scheduler", ""},
	"kubelet":            {"system:node:node", "system:nodes"},
	"proxy":              {"system:kube-proxy", ""},
}

// credentials are the keys of the control plane; the files are in DIR/pki.
type credentials struct {
	dir         string
	authority   *x509.Certificate
	key         crypto.Signer
	certificate []byte
	tokens      map[string]string
}

func newCredentials(dir, address string) (*credentials, error) {
	c := &credentials{dir: dir, tokens: map[string]string{}}
	if err := c.makeAuthority(); err != nil {
		return nil, err
	}
	err := c.issue("server", x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP(serviceAddress), net.ParseIP(address)},
		DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local"},
	})
	if err != nil {
		return nil, err
	}
	err = c.issue("kubelet-client", x509.Certificate{
		Subject:     pkix.Name{Organization: []string{"system:masters"}, CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, err
	}
	// Entra accepts only RSA signatures of service account tokens.
	serviceAccountKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	if err := c.writeKey("service-account", serviceAccountKey); err != nil {
		return nil, err
	}
	return c, c.writeTokens()
}

func (c *credentials) makeAuthority() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	authority, err := cert.NewSelfSignedCACert(cert.Config{CommonName: "test cluster"}, key)
	if err != nil {
		return err
	}
	c.authority, c.key = authority, key
	if c.certificate, err = cert.EncodeCertificates(authority); err != nil {
		return err
	}
	if err := c.writeKey("ca", key); err != nil {
		return err
	}
	return cert.WriteCert(c.path("ca.crt"), c.certificate)
}

// issue writes the certificate NAME.crt and its key NAME.key.
func (c *credentials) issue(name string, template x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.NotBefore, template.NotAfter = c.authority.NotBefore, c.authority.NotAfter
	signed, err := x509.CreateCertificate(rand.Reader, &template, c.authority, key.Public(), c.key)
	if err != nil {
		return err
	}
	certificate, err := x509.ParseCertificate(signed)
	if err != nil {
		return err
	}
	encoded, err := cert.EncodeCertificates(certificate)
	if err != nil {
		return err
	}
	if err := c.writeKey(name, key); err != nil {
		return err
	}
	return cert.WriteCert(c.path(name+".crt"), encoded)
}

func (c *credentials) writeKey(name string, key crypto.PrivateKey) error {
	encoded, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return err
	}
	return keyutil.WriteKey(c.path(name+".key"), encoded)
}

func (c *credentials) writeTokens() error {
	file, err := os.Create(c.path("tokens.csv"))
	if err != nil {
		return err
	}
	defer file.Close()
	rows := csv.NewWriter(file)
	for name, user := range users {
		random := make([]byte, 24)
		rand.Read(random)
		c.tokens[name] = hex.EncodeToString(random)
		row := []string{c.tokens[name], user.name, name}
		if user.group != "" {
			row = append(row, user.group)
		}
		rows.Write(row)
	}
	rows.Flush()
	return rows.Error()
}

func (c *credentials) path(name string) string {
	return filepath.Join(c.dir, "pki", name)
}

// writeKubeconfigs writes the administrator's to DIR/kubeconfig, and DIR/pki/NAME.kubeconfig for the other users.
func (c *credentials) writeKubeconfigs(server string) error {
	for name := range users {
		config := api.NewConfig()
		config.CurrentContext = "test"
		config.Contexts["test"] = &api.Context{Cluster: "test", AuthInfo: name}
		config.Clusters["test"] = &api.Cluster{Server: server, CertificateAuthorityData: c.certificate}
		config.AuthInfos[name] = &api.AuthInfo{Token: c.tokens[name]}
		file := c.path(name + ".kubeconfig")
		if name == "admin" {
			file = filepath.Join(c.dir, "kubeconfig")
		}
		if err := clientcmd.WriteToFile(*config, file); err != nil {
			return err
		}
	}
	return nil
}

// admin is the configuration of a client with all rights. A call that gets no answer is given up for the next one.
func (c *credentials) admin(server string) *rest.Config {
	return &rest.Config{
		Host:            server,
		BearerToken:     c.tokens["admin"],
		TLSClientConfig: rest.TLSClientConfig{CAData: c.certificate},
		Timeout:         5 * time.Second,
		// Without a limit of its own, by which the client would wait longer than asked.
		QPS: -1,
	}
}
