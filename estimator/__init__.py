"""The models as a scikit-learn estimator, for a matrix and a handful of labels.

classifier = SemiSupervisedClassifier(random_state=0).fit(X, y)    # y is -1 where the label is unknown
classifier.predict(X)
"""

from .classifier import SemiSupervisedClassifier

__all__ = ["SemiSupervisedClassifier"]
