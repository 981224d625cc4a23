"""From the ARN of a queue to its URL, which SQS wants."""

from collections import OrderedDict

from stoker.aws.clients import AwsClients

URLS_KEPT = 10_000


class QueueUrls:
    """Asked once a queue. For calls that block."""

    def __init__(self, clients: AwsClients) -> None:
        self._clients = clients
        self._urls: OrderedDict[str, str] = OrderedDict()

    def url(self, arn: str) -> str:
        """Raises what botocore raises."""
        found = self._urls.get(arn)
        if found is not None:
            return found
        _, _, _, region, account, name = arn.split(":", 5)
        answer = self._clients.client("sqs", region).get_queue_url(
            QueueName=name, QueueOwnerAWSAccountId=account
        )
        self._urls[arn] = url = answer["QueueUrl"]
        while len(self._urls) > URLS_KEPT:
            self._urls.popitem(last=False)
        return url

    def forget(self, arn: str) -> None:
        """The queue may be another now."""
        self._urls.pop(arn, None)
