package s3

import (
	"errors"
	"fmt"
	"os"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// keys finds the credentials anew for each request, so that a file can be put
// right while it is in use.
type keys struct{ file string }

// IsExpired implements credentials.Provider.
func (keys) IsExpired() bool { return true }

// RetrieveWithCredContext implements credentials.Provider.
func (k keys) RetrieveWithCredContext(*credentials.CredContext) (credentials.Value, error) {
	return k.Retrieve()
}

// Retrieve reads the file, in the format of ~/.aws/credentials, or the
// environment: QUARXFS_S3_ACCESS_KEY_ID and QUARXFS_S3_SECRET_ACCESS_KEY, or
// those that begin with AWS_.
func (k keys) Retrieve() (v credentials.Value, err error) {
	if k.file == "" {
		return fromEnvironment()
	}
	info, err := os.Stat(k.file)
	if err != nil {
		return v, fmt.Errorf("credentials: %w", err)
	}
	// At each use and not once: the file may be replaced while the store is mounted.
	// One that is no file, a pipe perhaps, is read by the library without an end.
	if !info.Mode().IsRegular() {
		return v, fmt.Errorf("credentials: %s is no regular file", k.file)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return v, fmt.Errorf("credentials: others may read %s: chmod 600 it", k.file)
	}
	v, err = credentials.NewFileAWSCredentials(k.file, "").GetWithContext(nil)
	if err != nil {
		return v, fmt.Errorf("credentials: %s: %w", k.file, err)
	}
	if v.AccessKeyID == "" || v.SecretAccessKey == "" {
		return v, fmt.Errorf("credentials: %s: it has no aws_access_key_id and aws_secret_access_key below [default]", k.file)
	}
	return v, nil
}

func fromEnvironment() (v credentials.Value, err error) {
	for _, prefix := range []string{"QUARXFS_S3_", "AWS_"} {
		v.AccessKeyID, v.SecretAccessKey = os.Getenv(prefix+"ACCESS_KEY_ID"), os.Getenv(prefix+"SECRET_ACCESS_KEY")
		v.SessionToken = os.Getenv(prefix + "SESSION_TOKEN")
		if v.AccessKeyID != "" && v.SecretAccessKey != "" {
			return v, nil
		}
	}
	return credentials.Value{}, errors.New("no credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not in the environment of the process that has the store open, and no credentials file was named")
}
