"""A certificate authority in a folder, by the openssl command: CAs, leaves, revocation lists."""
import os
import subprocess


def openssl(*args, **kwargs):
    p = subprocess.run(["openssl", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)
    if p.returncode != 0:
        raise RuntimeError("openssl " + " ".join(args) + "\n" + p.stderr.decode(errors="replace"))
    return p.stdout


class Authority:
    """A CA whose files begin with `name`. `crt` is its certificate, `issued` the leaves by name."""

    def __init__(self, folder, name):
        self.folder, self.name, self.issued = folder, name, {}
        self.crt, self.key = self.path("crt"), self.path("key")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-keyout", self.key, "-out", self.crt,
                "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign,cRLSign")
        with open(self.path("index"), "w"):
            pass
        with open(self.path("cnf"), "w") as f:
            f.write(f"[ca]\ndefault_ca=x\n[x]\ndatabase={self.path('index')}\ndefault_md=sha256\ndefault_crl_days=1\n"
                    f"certificate={self.crt}\nprivate_key={self.key}\n")

    def path(self, ending):
        return os.path.join(self.folder, f"{self.name}.{ending}")

    def issue(self, name, sans=(), days=30, key="ec"):
        """A leaf with subjectAltName entries like "DNS:a.test"; (certificate path, key path). `days` below 0: expired."""
        base = os.path.join(self.folder, f"{self.name}-{name}")
        crt, pem, csr = base + ".crt", base + ".key", base + ".csr"
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"] if key == "ec" else ["-newkey", "rsa:2048"]
        openssl("req", "-new", *kind, "-nodes", "-keyout", pem, "-out", csr, "-subj", f"/O=Millrace/CN={name}")
        with open(base + ".ext", "w") as f:
            f.write("basicConstraints=CA:FALSE\n" + ("subjectAltName=" + ",".join(sans) + "\n" if sans else ""))
        sign = ["x509", "-req", "-in", csr, "-CA", self.crt, "-CAkey", self.key, "-CAcreateserial", "-out", crt, "-days", str(days),
                "-extfile", base + ".ext"]
        openssl(*sign)
        self.issued[name] = (crt, pem)
        return crt, pem

    def revoke(self, *names):
        """Path of a CRL that revokes these leaves."""
        for name in names:
            openssl("ca", "-config", self.path("cnf"), "-revoke", self.issued[name][0])
        openssl("ca", "-config", self.path("cnf"), "-gencrl", "-out", self.path("crl"))
        return self.path("crl")


def certificate_hash(crt):
    """SHA-256 of the certificate as Envoy wants it for verify_certificate_hash, with colons."""
    return openssl("x509", "-in", crt, "-noout", "-fingerprint", "-sha256").decode().strip().split("=")[1]


def spki_hash(crt):
    """SHA-256 of the public key in base64, for verify_certificate_spki."""
    public = openssl("x509", "-in", crt, "-noout", "-pubkey")
    der = openssl("pkey", "-pubin", "-outform", "DER", input=public)
    digest = openssl("dgst", "-sha256", "-binary", input=der)
    return openssl("base64", input=digest).decode().strip()
